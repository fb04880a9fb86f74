"""The models that can be chosen, for the page's scripts; what is told is said in `app.models.model_picker`.

`GET /models?context_tokens=N&weight_bits=N` tells of the present model and of all that are on this machine,
`GET /models/state` of the present one alone. `POST /models/switch` takes {"model": reference, "context_tokens": N or
null, "weight_bits": N or null, "stop": bool}; `POST /models/folders` {"path": text, "remove": bool}. A refusal is
{"error": sentence}, with "running" where an answer would have to be stopped first, and status 200: it is an answer, and
no fault of the page.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Body, FastAPI, Request
from fastapi.responses import JSONResponse

from app.errors import UserFacingError
from app.models.model_switch import AnswersRunning

if TYPE_CHECKING:
    from app.chat.assistant import Assistant

_NOT_KEPT = {"Cache-Control": "no-store"}
_MOST_TOKENS = (1 << 31) - 1


def add_model_routes(app: FastAPI, assistant: Assistant) -> None:
    """Serve `/models` and what lies below it, but for downloads."""

    # Plain `def` routes run in a thread: these wait for locks, and for torch to be imported.
    @app.get("/models")
    def models(context_tokens: int | None = None, weight_bits: int | None = None) -> JSONResponse:
        if context_tokens is not None and not 1 <= context_tokens <= _MOST_TOKENS:
            return answer(lambda: refuse(f"No window has {context_tokens} tokens."))
        if weight_bits not in (None, 16, 8, 4):
            return answer(lambda: refuse(f"Weights have 16, 8 or 4 bits, not {weight_bits}."))
        return answer(lambda: assistant.models.listing(context_tokens, weight_bits))

    @app.get("/models/state")
    def state() -> JSONResponse:
        return answer(assistant.models.state)

    @app.post("/models/switch")
    def switch(
        model: Annotated[str, Body()],
        context_tokens: Annotated[int | None, Body()] = None,
        weight_bits: Annotated[int | None, Body()] = None,
        stop: Annotated[bool, Body()] = False,
    ) -> JSONResponse:
        def switched() -> dict[str, Any]:
            assistant.switch_model(model, context_tokens, weight_bits, stop)
            return {"state": assistant.models.state()}

        return answer(switched)

    @app.post("/models/folders")
    def folders(
        request: Request, path: Annotated[str, Body()], remove: Annotated[bool, Body()] = False
    ) -> JSONResponse:
        def changed() -> dict[str, Any]:
            # Otherwise whoever reaches the page could try out which folders this machine has.
            if not _is_here(request):
                refuse("Folders can be named only in a browser on the machine that Quest Chat runs on.")
            if remove:
                assistant.models.remove_folder(path)
            else:
                assistant.models.add_folder(path)
            return {"folders": list(assistant.models.local.folders)}

        return answer(changed)

    def refuse(sentence: str) -> Any:
        raise UserFacingError(sentence)

    def answer(tell: Callable[[], dict[str, Any]]) -> JSONResponse:
        try:
            return JSONResponse(tell(), headers=_NOT_KEPT)
        except AnswersRunning as error:
            return JSONResponse({"error": error.message, "running": True}, headers=_NOT_KEPT)
        except UserFacingError as error:
            return JSONResponse({"error": error.message}, headers=_NOT_KEPT)


def _is_here(request: Request) -> bool:
    """Whether a request comes from this machine."""
    host = request.client.host if request.client else ""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
