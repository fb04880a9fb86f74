"""What the page's lists show, and conversations as files to download.

What `GET /library?conversation=ID&search=WORDS` tells is said in `app.chat.library_listing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from fastapi import FastAPI

    from app.chat.assistant import Assistant

# Of a conversation's title, in the name of the file that it is saved as.
_FILE_NAME_CHARACTERS = 60


def add_library_routes(app: FastAPI, assistant: Assistant) -> None:
    """Serve the lists and the downloads."""
    from fastapi.responses import JSONResponse, Response

    # Plain `def` routes run in a thread: these wait for the database.
    @app.get("/library")
    def library(conversation: str = "", search: str = "") -> JSONResponse:
        return JSONResponse(assistant.library_json(conversation, search), headers={"Cache-Control": "no-store"})

    @app.get("/conversations/{conversation_id}/export.md")
    def markdown(conversation_id: str) -> Response:
        return download(conversation_id, "markdown", "text/markdown", "md")

    @app.get("/conversations/{conversation_id}/export.json")
    def as_json(conversation_id: str) -> Response:
        return download(conversation_id, "json", "application/json", "json")

    def download(conversation_id: str, kind: Any, media_type: str, suffix: str) -> Response:
        text = assistant.export_conversation(conversation_id, kind)
        name = file_name(assistant.conversation(conversation_id).title, suffix)
        # The plain name is for browsers that do not know the other.
        disposition = f"attachment; filename=\"conversation.{suffix}\"; filename*=UTF-8''{quote(name, safe='')}"
        headers = {"Content-Disposition": disposition, "Cache-Control": "no-store"}
        return Response(text, media_type=f"{media_type}; charset=utf-8", headers=headers)


def file_name(title: str, suffix: str) -> str:
    """A name for a conversation's file: its title, as far as every file system takes it."""
    kept = "".join(character if character.isalnum() or character in "-_" else " " for character in title)
    return f"{' '.join(kept.split())[:_FILE_NAME_CHARACTERS].strip() or 'conversation'}.{suffix}"
