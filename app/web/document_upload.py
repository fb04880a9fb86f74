"""Documents from outside: `POST /library/documents?conversation=ID&name=FILE` with the file's bytes as its body.

Where none is named, as programs do, the document is added to the library alone.

One file a request, and nothing but its bytes: no client names a path here. What is sent lies in a folder of its own
until the library has taken it, and goes with that folder if the browser breaks off. What becomes of the document, the
lists tell (`app.web.library_routes`).
"""

import shutil
from pathlib import Path
from typing import Any

from anyio.to_thread import run_sync
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from app.chat.assistant import Assistant
from app.errors import UserFacingError, explain
from app.library.formats import SUPPORTED_NAMES
from app.library.limits import MEBIBYTE, ReadLimits
from app.store.data_folder import storage_error
from app.store.stored_text import file_name_of
from app.web.uploads import UploadFolder

MOST_BYTES = ReadLimits.file_bytes
# Written in pieces of at least so many bytes: each is a step into another thread.
_PIECE_BYTES = 1 << 20


def add_document_upload(app: FastAPI, uploads: UploadFolder, assistant: Assistant) -> None:
    """Serve the route.

    It answers with `{document_id, name, note}`, where the note says what is odd about it ("" if nothing is), or with
    `{error, supported}`: a sentence, and where it is about the format, what can be read. A refusal is an answer like
    another, with status 200: a browser would put other ones into its console as errors of the page.
    """

    @app.post("/library/documents")
    async def add(request: Request, conversation: str | None = None, name: str = "") -> JSONResponse:
        name = file_name_of(name)
        folder = await run_sync(uploads.new_folder)
        try:
            # On the disk it has a name of ours, whatever it is called.
            path = folder / f"document{Path(name).suffix}"
            await _write(request, path, name)
            return JSONResponse(await run_sync(_add, assistant, conversation, path, name))
        except ClientDisconnect:
            # Nobody is there to read it.
            return JSONResponse({"error": f'Adding "{name}" was broken off.', "supported": ""})
        except OSError as error:
            return _refusal(storage_error(error, uploads.root), name)
        except Exception as error:
            return _refusal(error, name)
        finally:
            await run_sync(lambda: shutil.rmtree(folder, ignore_errors=True))

    async def _write(request: Request, path: Path, name: str) -> None:
        with path.open("wb") as file:
            piece, written = bytearray(), 0
            async for part in request.stream():
                piece += part
                written += len(part)
                if max(written, int(request.headers.get("content-length", 0))) > MOST_BYTES:
                    raise UserFacingError(too_large(name))
                if len(piece) >= _PIECE_BYTES:
                    await run_sync(file.write, bytes(piece))
                    piece.clear()
            await run_sync(file.write, bytes(piece))

    def _refusal(error: Exception, name: str) -> JSONResponse:
        message = explain(error, f"Adding {name}").message
        supported = f"Supported are {SUPPORTED_NAMES}."
        told = {"error": " ".join(message.replace(supported, "").split()), "supported": ""}
        if supported in message:
            told["supported"] = SUPPORTED_NAMES
        return JSONResponse(told)


def too_large(name: str) -> str:
    """What to say of a file that is larger than what is read."""
    return f'"{name}" is larger than {MOST_BYTES // MEBIBYTE} MiB. Split it into parts.'


def _add(assistant: Assistant, conversation_id: str | None, path: Path, name: str) -> dict[str, Any]:
    if conversation_id is not None:
        conversation = assistant.conversation(conversation_id)
        present = set(conversation.document_ids)
        entry = assistant.add_document(conversation, path, name, take=True)
    else:
        present = set()
        entry = assistant.library.add(path, name, take=True)
    note = ""
    if entry.document_id in present:
        note = f'"{name}" is in this chat already.'
    elif entry.file_name != name:
        note = f'"{name}" has the same content as "{entry.name}", which is in the library already.'
    return {"document_id": entry.document_id, "name": entry.name, "note": note}
