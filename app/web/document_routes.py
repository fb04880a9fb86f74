"""Documents of the library as the page shows them: their pages as pictures and as text, marks, and search.

What is told is said in `app.viewer.document_viewer`. Requests name documents by the hash of their bytes and pages by
number; nothing else of a request reaches a file.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from app.library.reader import DOCUMENT_ID_DIGITS
from app.viewer.document_viewer import IMAGE_MEDIA_TYPE
from app.viewer.errors import RenderBusy

if TYPE_CHECKING:
    from app.chat.assistant import Assistant

_DOCUMENT_ID = re.compile(rf"[0-9a-f]{{{DOCUMENT_ID_DIGITS}}}")
# A page always looks the same; but a browser should not have it for long once its document is removed.
_IMAGE_CACHE = "private, max-age=3600"
_NOT_KEPT = {"Cache-Control": "no-store"}
# How often one looks whether the browser still waits.
_LOOK_S = 0.1
_HITS = 100
_CLIENT_LEFT = 499


def add_document_routes(app: FastAPI, assistant: Assistant) -> None:
    """Serve what lies below `/documents/`."""

    @app.exception_handler(RenderBusy)
    def busy(request: Request, error: RenderBusy) -> JSONResponse:
        return JSONResponse({"error": error.message}, 503, headers={"Retry-After": "1"} | _NOT_KEPT)

    @app.get("/documents/{document_id}")
    async def description(request: Request, document_id: str) -> Response:
        return await answer(request, document_id, partial(assistant.viewer.description, document_id), as_json)

    @app.get("/documents/{document_id}/pages/{index}/image")
    async def image(request: Request, document_id: str, index: int, width: int = 800) -> Response:
        return await answer(request, document_id, partial(assistant.viewer.image, document_id, index, width), as_image)

    @app.get("/documents/{document_id}/pages/{index}/marks")
    async def marks(request: Request, document_id: str, index: int, start: int, end: int) -> Response:
        asked = partial(assistant.viewer.marks, document_id, index, start, end)
        return await answer(request, document_id, asked, lambda boxes: as_json({"boxes": boxes}))

    # Plain `def` routes run in a thread: these wait for the database.
    @app.get("/documents/{document_id}/pages/{index}/text")
    def text(document_id: str, index: int) -> Response:
        return as_json({"text": assistant.viewer.text(document_id, index)}) if is_id(document_id) else not_there()

    @app.get("/documents/{document_id}/search")
    def search(document_id: str, words: str = "", limit: int = _HITS) -> Response:
        return as_json(assistant.viewer.search(document_id, words, limit)) if is_id(document_id) else not_there()

    async def answer(
        request: Request, document_id: str, ask: Callable[[], Future], respond: Callable[[Any], Response]
    ) -> Response:
        """Wait for a render process, as long as the browser does."""
        if not is_id(document_id):
            return not_there()
        future = await anyio.to_thread.run_sync(ask)
        waited = asyncio.wrap_future(future)
        while not waited.done():
            await asyncio.wait((waited,), timeout=_LOOK_S)
            if not waited.done() and await request.is_disconnected():
                # Scrolled away: what waits now comes sooner.
                waited.cancel()
                return Response(status_code=_CLIENT_LEFT)
        return respond(waited.result())

    def as_json(content: dict[str, Any]) -> Response:
        return JSONResponse(content, headers=_NOT_KEPT)

    def as_image(content: bytes) -> Response:
        return Response(content, media_type=IMAGE_MEDIA_TYPE, headers={"Cache-Control": _IMAGE_CACHE})

    def is_id(document_id: str) -> bool:
        return _DOCUMENT_ID.fullmatch(document_id) is not None

    def not_there() -> Response:
        return JSONResponse({"error": "This document is not in the library."}, 404, headers=_NOT_KEPT)
