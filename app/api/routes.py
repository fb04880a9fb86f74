"""The routes below /v1, and what is answered there to whatever else is asked.

Every error there has OpenAI's shape, also one that nobody foresaw; what the access key and the request guard refuse
comes from them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Coroutine
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from app.api.admission import Admission
from app.api.answers import answer_to
from app.api.errors import ApiError, refused
from app.api.exchange import Exchange, error_reply
from app.api.replies import ChatReply, TextReply
from app.api.requests import ApiRequest, read_chat, read_text
from app.errors import UserFacingError

if TYPE_CHECKING:
    from app.chat.assistant import Assistant
    from app.models.model_loader import ModelStatus
    from app.settings import AppSettings

_LOADING_RETRY_S = 3
# A name for whatever model is loaded.
_ANY_MODEL = "default"
_log = logging.getLogger(__name__)
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_ALLOWED = {"chat/completions": "POST", "completions": "POST", "models": "GET", "documents": "GET"}
_NOT_SERVED = {
    "embeddings": "Embeddings are not made here: the model answers, and documents are searched by their words.",
    "responses": "The Responses API is not served. Use /v1/chat/completions.",
}


def add_api_routes(
    app: FastAPI, assistant: Assistant, settings: AppSettings, admission: Admission | None = None
) -> None:
    """Serve the API.

    Args:
        settings: attention and budget where a request says nothing of them.
        admission: for tests.
    """
    places = admission or Admission()
    router = APIRouter(route_class=_Route)

    # Plain `def` routes run in a thread: this waits for the database.
    @router.get("/v1/documents")
    def documents() -> JSONResponse:
        entries = [
            {"id": one.document_id, "object": "document", "name": one.name, "state": one.state, "pages": one.page_count}
            for one in assistant.library.entries()
        ]
        return JSONResponse({"object": "list", "data": entries})

    @router.get("/v1/models")
    async def models() -> JSONResponse:
        return JSONResponse({"object": "list", "data": [_model_json(_ready(assistant))]})

    @router.get("/v1/models/{name:path}")
    async def model(name: str) -> JSONResponse:
        status = _ready(assistant)
        _check_model(name, status)
        return JSONResponse(_model_json(status))

    @router.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await exchange(request, read_chat, ChatReply)

    @router.post("/v1/completions")
    async def text(request: Request) -> Response:
        return await exchange(request, read_text, TextReply)

    async def exchange(
        request: Request, read: Callable[[Any, AppSettings], ApiRequest], reply_class: type[ChatReply | TextReply]
    ) -> Response:
        asked = read(await _json_body(request), settings)
        status = _ready(assistant)
        _check_model(asked.model, status)
        reply = reply_class(asked, status.model)
        return Exchange(asked, answer_to(asked, assistant), reply, places, _client(request, asked))

    @router.api_route("/v1/{path:path}", methods=_METHODS)
    @router.api_route("/v1", methods=_METHODS)
    async def anything_else(request: Request, path: str = "") -> JSONResponse:
        known = "models" if path.startswith("models/") else path
        if known in _ALLOWED:
            error = ApiError(405, f"/v1/{path} takes {_ALLOWED[known]} alone.", None, "method_not_allowed")
            return JSONResponse(error.to_json(), 405, {"Allow": _ALLOWED[known]})
        if path in _NOT_SERVED:
            raise ApiError(501, _NOT_SERVED[path], None, "not_supported")
        raise ApiError(404, f"/v1/{path[:100]} is not served.", None, "unknown_url")

    app.include_router(router)


class _Route(APIRoute):
    """A route whose errors, whatever they are, are told in OpenAI's shape."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_or_tell(request: Request) -> Response:
            try:
                return await handle(request)
            except ApiError as error:
                return error_reply(error)
            except UserFacingError as error:
                return error_reply(refused(error.message))
            except Exception as error:  # a client must hear of it, and not how it came about
                _log.error("a request to the API failed", exc_info=error)
                return error_reply(ApiError(500, "The request failed on an error in Quest Chat. The terminal has it."))

        return handle_or_tell


def _ready(assistant: Assistant) -> ModelStatus:
    """The state of the model, which is there.

    Raises:
        ApiError: it is not.
    """
    status = assistant.status()
    if status.stage == "failed":
        raise ApiError(503, status.message, None, "model_failed")
    if status.stage != "ready":
        assistant.start_loading()
        raise ApiError(
            503,
            f"The model is being loaded ({status.message}).",
            None,
            "model_loading",
            _LOADING_RETRY_S,
        )
    return status


def _check_model(name: str, status: ModelStatus) -> None:
    if name not in (_ANY_MODEL, status.model, status.reference):
        raise ApiError(
            404, f"There is no model {name[:100]!r} here; the one that is loaded is {status.model}.", "model",
            "model_not_found",
        )  # fmt: skip


def _model_json(status: ModelStatus) -> dict[str, Any]:
    return {
        "id": status.model,
        "object": "model",
        "created": 0,
        "owned_by": "quest-chat",
        # As vLLM calls the window.
        "max_model_len": status.context_tokens,
    }


async def _json_body(request: Request) -> Any:
    from starlette.requests import ClientDisconnect

    try:
        return json.loads(await request.body())
    except ClientDisconnect as error:
        raise refused("The request was cut off.") from error
    except (ValueError, RecursionError) as error:
        raise refused("The body is not valid JSON.") from error


def _client(request: Request, asked: ApiRequest) -> str:
    """Who takes turns with others: an address, its key, and whom it asks for."""
    address = request.client.host if request.client else ""
    told = json.dumps([address, request.headers.get("authorization", ""), asked.client])
    return sha256(told.encode()).hexdigest()
