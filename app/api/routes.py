"""The routes below /v1, and what is answered there to whatever else is asked.

Every error there has OpenAI's shape; what the access key and the request guard refuse comes from them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from app.api.admission import Admission
from app.api.answers import answer_to
from app.api.errors import ApiError, refused
from app.api.exchange import Exchange, error_reply
from app.api.replies import ChatReply, TextReply
from app.api.requests import ApiRequest, read_chat, read_text

if TYPE_CHECKING:
    from app.chat.assistant import Assistant
    from app.models.model_loader import ModelStatus
    from app.settings import AppSettings

_LOADING_RETRY_S = 3
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

    @app.exception_handler(ApiError)
    def refuse(request: Request, error: ApiError) -> JSONResponse:
        return error_reply(error)

    # Plain `def` routes run in a thread: this waits for the database.
    @app.get("/v1/documents")
    def documents() -> JSONResponse:
        entries = [
            {"id": one.document_id, "object": "document", "name": one.name, "state": one.state, "pages": one.page_count}
            for one in assistant.library.entries()
        ]
        return JSONResponse({"object": "list", "data": entries})

    @app.get("/v1/models")
    async def models() -> JSONResponse:
        return JSONResponse({"object": "list", "data": [_model_json(_ready(assistant))]})

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> JSONResponse:
        status = _ready(assistant)
        _check_model(name, status)
        return JSONResponse(_model_json(status))

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await exchange(request, read_chat, ChatReply)

    @app.post("/v1/completions")
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

    @app.api_route("/v1/{path:path}", methods=_METHODS)
    @app.api_route("/v1", methods=_METHODS)
    async def anything_else(request: Request, path: str = "") -> JSONResponse:
        known = "models" if path.startswith("models/") else path
        if known in _ALLOWED:
            error = ApiError(405, f"/v1/{path} takes {_ALLOWED[known]} alone.", None, "method_not_allowed")
            return JSONResponse(error.to_json(), 405, {"Allow": _ALLOWED[known]})
        if path in _NOT_SERVED:
            raise ApiError(501, _NOT_SERVED[path], None, "not_supported")
        raise ApiError(404, f"/v1/{path[:100]} is not served.", None, "unknown_url")


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
    if name not in (status.model, status.reference):
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
