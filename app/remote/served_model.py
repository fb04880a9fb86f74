"""What another engine serves: its model and how many tokens that takes, read from its /v1/models.

Servers tell the window at different places, and some nowhere. Knows nothing of questions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx2

from app.errors import UserFacingError
from app.remote.chat_stream import CONNECT_S
from app.remote.server_address import ServerAddress
from app.remote.server_errors import ServerError, moved, of_status, silent, stranger, unreachable

# Where neither the server nor the user says it: what nearly every model takes.
UNKNOWN_WINDOW_TOKENS = 4096
_ANSWER_S = 30.0
_MOST_LISTED = 8


@dataclass(frozen=True)
class ServedModel:
    """A model of another engine.

    Args:
        model_id: as requests name it.
        context_tokens: its window; None if the server does not say.
    """

    model_id: str
    context_tokens: int | None

    @property
    def name(self) -> str:
        """For people: of a path, which some servers take for a name, the last part."""
        last = self.model_id.replace("\\", "/").rstrip("/").rpartition("/")[2]
        return last.removesuffix(".gguf") or self.model_id


def served_model(address: ServerAddress, wanted: str = "") -> ServedModel:
    """The model that questions are put to.

    Args:
        address: of the server.
        wanted: its name; "" for the one that the server has.

    Raises:
        UserFacingError: the server cannot be asked, has no such model, or several and none is wanted.
    """
    with httpx2.Client(
        timeout=httpx2.Timeout(_ANSWER_S, connect=CONNECT_S), trust_env=not address.is_local, headers=address.headers
    ) as client:
        try:
            listed = _models(address, _json(address, client, f"{address.base}/models"))
        except ServerError as error:
            # A few have no list. They are asked by the name that is given.
            if error.kind != "stranger" or not wanted:
                raise
            return ServedModel(wanted, None)
        if wanted:
            entry = next((entry for entry in listed if entry["id"] == wanted), None)
            if entry is None:
                entry = next((entry for entry in listed if ServedModel(entry["id"], None).name == wanted), None)
            if entry is None:
                raise UserFacingError(f"{address.shown} has no model {wanted!r}. It has {_names(listed)}.")
        elif len(listed) > 1:
            raise UserFacingError(
                f"{address.shown} has several models. Name one with --engine-model: {_names(listed)}."
            )
        else:
            entry = listed[0]
        return ServedModel(entry["id"], _window(entry) or _running_window(address, client, entry) or _trained(entry))


def _models(address: ServerAddress, values: Any) -> list[dict[str, Any]]:
    data = values.get("data") if isinstance(values, dict) else None
    if not isinstance(data, list):
        raise stranger(address, "lists no models")
    listed = [entry for entry in data if isinstance(entry, dict) and isinstance(entry.get("id"), str) and entry["id"]]
    if not listed:
        raise UserFacingError(f"{address.shown} has no model loaded. Load one there, and start again.")
    return listed


def _window(entry: dict[str, Any]) -> int | None:
    """The window of the running model: vLLM and SGLang, LM Studio and others, llama.cpp where it tells it."""
    meta = entry.get("meta") if isinstance(entry.get("meta"), dict) else {}
    for value in (*map(entry.get, ("max_model_len", "context_length", "context_window")), meta.get("n_ctx")):
        if _is_window(value):
            return value
    return None


def _running_window(address: ServerAddress, client: httpx2.Client, entry: dict[str, Any]) -> int | None:
    """llama.cpp may be started with another window than the model was trained for, and tells it elsewhere."""
    if entry.get("owned_by") != "llamacpp":
        return None
    try:
        values = _json(address, client, f"{address.shown}/props")
    except ServerError:
        return None
    running = values.get("default_generation_settings") if isinstance(values, dict) else None
    value = running.get("n_ctx") if isinstance(running, dict) else None
    return value if _is_window(value) else None


def _trained(entry: dict[str, Any]) -> int | None:
    meta = entry.get("meta")
    value = meta.get("n_ctx_train") if isinstance(meta, dict) else None
    return value if _is_window(value) else None


def _is_window(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _names(listed: list[dict[str, Any]]) -> str:
    names = [entry["id"] for entry in listed]
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return ", ".join(names[:_MOST_LISTED]) + more


def _json(address: ServerAddress, client: httpx2.Client, url: str) -> Any:
    try:
        response = client.get(url)
    except httpx2.ReadTimeout as error:
        raise silent(address, _ANSWER_S) from error
    except httpx2.HTTPError as error:
        raise unreachable(address, error) from error
    if response.is_redirect:
        raise moved(address, response.headers.get("location", "").partition("?")[0])
    if response.status_code != 200:
        raise of_status(address, response.status_code, response.content)
    try:
        return response.json()
    except (ValueError, RecursionError) as error:
        raise stranger(address, "sends what is no JSON") from error
