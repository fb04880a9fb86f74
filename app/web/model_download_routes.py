"""Models to download, and downloads under way, for the page's scripts.

`GET /models/downloads` tells "refusal" (a sentence where nothing can be downloaded), "memory", "free_bytes" of the
disk, "suggestions" that this machine can hold, how many it cannot ("too_large"), and "downloads" as
`HubDownload.to_listing` says. `POST` to `about` below it asks the hub about a model, and `start`, `pause`, `resume`
and `cancel` do as they say; all take {"model": ID}, the last also {"keep": bool}. What the user should know of
a refusal is in "error", with status 200: it is an answer, and no fault of the page.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Body, FastAPI
from fastapi.responses import JSONResponse

from app.errors import UserFacingError
from app.models.hub.download_listing import about_json, downloads_json
from quest_core.config import EngineConfig

if TYPE_CHECKING:
    from app.chat.assistant import Assistant

_NOT_KEPT = {"Cache-Control": "no-store"}


def add_model_download_routes(app: FastAPI, assistant: Assistant, config: EngineConfig) -> None:
    """Serve what lies below `/models/downloads`; `config` is what the engine is loaded with."""

    # Plain `def` routes run in a thread: these wait for the disk, and one for the network.
    @app.get("/models/downloads")
    def listing() -> JSONResponse:
        return answer(lambda: downloads_json(assistant.model_downloads, config))

    # Not by GET, which any web page could have the browser ask: the hub would hear of it.
    @app.post("/models/downloads/about")
    def about(model: Annotated[str, Body(embed=True)]) -> JSONResponse:
        return answer(lambda: about_json(assistant.model_downloads, model.strip(), config))

    @app.post("/models/downloads/start")
    def start(model: Annotated[str, Body(embed=True)]) -> JSONResponse:
        return changed(lambda: assistant.model_downloads.start(model.strip()))

    @app.post("/models/downloads/resume")
    def resume(model: Annotated[str, Body(embed=True)]) -> JSONResponse:
        return changed(lambda: assistant.model_downloads.start(model))

    @app.post("/models/downloads/pause")
    def pause(model: Annotated[str, Body(embed=True)]) -> JSONResponse:
        return changed(lambda: assistant.model_downloads.pause(model))

    @app.post("/models/downloads/cancel")
    def cancel(model: Annotated[str, Body()], keep: Annotated[bool, Body()]) -> JSONResponse:
        return changed(lambda: assistant.model_downloads.cancel(model, keep))

    def changed(do: Callable[[], None]) -> JSONResponse:
        def done() -> dict[str, Any]:
            do()
            return {"downloads": assistant.model_downloads.listing()}

        return answer(done)

    def answer(tell: Callable[[], dict[str, Any]]) -> JSONResponse:
        try:
            return JSONResponse(tell(), headers=_NOT_KEPT)
        except UserFacingError as error:
            return JSONResponse({"error": error.message}, headers=_NOT_KEPT)
