"""A Quest Chat that runs already, here or on another machine: is it there, what has it read, what does it answer.

Speaks HTTP: the library's routes and the OpenAI-compatible API. Its errors are sentences that say what to do; nothing
is shown here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from app.errors import UserFacingError

# The first tokens of a long document come after minutes; to be told at all whether somebody is there takes no time.
_TIMEOUT = httpx2.Timeout(10.0, read=900.0, write=60.0)
_POLL_S = 0.3
# How often, and how long at most, a full queue is waited for.
_TRIES = 30
_MOST_WAIT_S = 30.0


class RunningApp:
    """The app at an address; close it when done.

    Args:
        url: as the user wrote it; "localhost:7860" and an address that ends in /v1 do as well.
        api_key: "" for none.

    Raises:
        UserFacingError: the address is none, or the key cannot be sent.
    """

    def __init__(self, url: str, api_key: str = "") -> None:
        self.address = _address(url)
        if not api_key.isascii() or not api_key.isprintable():
            raise UserFacingError("--api-key has characters that no key has. Copy it again.")
        self._has_key = bool(api_key)
        self._client = httpx2.Client(
            base_url=self.address,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=_TIMEOUT,
            # No proxy leads to this machine.
            trust_env=urlsplit(self.address).hostname not in ("localhost", "127.0.0.1", "::1"),
        )

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def health(self) -> dict[str, Any]:
        """What it says of itself: status, message, model, device.

        Raises:
            UserFacingError: nobody is there, or another program, or it asks for a key.
        """
        with self._explained():
            response = self._client.get("/healthz")
        self._refuse_errors(response)
        health = _json(response)
        if not isinstance(health, dict) or "instance" not in health:
            raise UserFacingError(self._is_other_program())
        return health

    def model_name(self) -> str:
        """By which its API knows its model.

        Raises:
            UserFacingError: it serves no API.
        """
        with self._explained():
            response = self._client.get("/v1/models")
        self._refuse_errors(response)
        try:
            return str(_json(response)["data"][0]["id"])
        except (KeyError, IndexError, TypeError):
            raise UserFacingError(f"The Quest Chat at {self.address} has no model. Choose one in its page.") from None

    def add_document(self, path: Path) -> str:
        """Send a document into its library; returns its id. Its text comes afterwards.

        Raises:
            UserFacingError: the file cannot be read, here or there.
        """
        try:
            with path.open("rb") as file, self._explained():
                headers = {"Content-Length": str(path.stat().st_size)}
                response = self._client.post(
                    "/library/documents", params={"name": path.name}, content=file, headers=headers
                )
        except OSError as error:
            raise UserFacingError(f'"{path}" cannot be opened: {error.strerror or error}.') from error
        self._refuse_errors(response)
        answer = _json(response)
        if not isinstance(answer, dict) or not (answer.get("document_id") or answer.get("error")):
            raise UserFacingError(self._is_other_program())
        if error := answer.get("error"):
            supported = f" Supported are {answer['supported']}." if answer.get("supported") else ""
            raise UserFacingError(f"{error}{supported}")
        return str(answer["document_id"])

    def follow_reading(self, document_id: str) -> Iterator[dict[str, Any]]:
        """The document as its library lists it, again and again; last as it is when nobody reads it any more.

        Raises:
            UserFacingError: it is removed meanwhile.
        """
        while True:
            with self._explained():
                response = self._client.get("/library")
            self._refuse_errors(response)
            documents = (_json(response) or {}).get("documents", ())
            entry = next((one for one in documents if one["document_id"] == document_id), None)
            if entry is None:
                raise UserFacingError("The document was removed from the library while it was read. Ask again.")
            yield entry
            if entry["state"] != "reading":
                return
            time.sleep(_POLL_S)

    def answer(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The chunks of a streamed chat completion.

        Args:
            request: the body, without "stream".

        Raises:
            UserFacingError: it is refused, or breaks off.
        """
        body = request | {"stream": True, "stream_options": {"include_usage": True}}
        for _ in range(_TRIES):
            with self._explained(), self._client.stream("POST", "/v1/chat/completions", json=body) as response:
                if response.status_code != 503 or "retry-after" not in response.headers:
                    if response.status_code >= 300:
                        response.read()
                    self._refuse_errors(response)
                    yield from self._chunks(response)
                    return
                wait_s = _seconds(response)
            time.sleep(min(wait_s, _MOST_WAIT_S))
        raise UserFacingError(f"The Quest Chat at {self.address} has too many questions waiting. Try again later.")

    def _chunks(self, response: httpx2.Response) -> Iterator[dict[str, Any]]:
        for line in response.iter_lines():
            if not line.startswith("data:"):
                continue
            data = line.removeprefix("data:").strip()
            if data == "[DONE]":
                return
            try:
                chunk = json.loads(data)
            except ValueError:
                chunk = None
            if not isinstance(chunk, dict):
                raise UserFacingError(self._is_other_program())
            if error := chunk.get("error"):
                raise UserFacingError(_sentence(error) or "The answer failed there; its terminal has the details.")
            yield chunk
        raise UserFacingError(self._broke_off())

    def _refuse_errors(self, response: httpx2.Response) -> None:
        """Raise UserFacingError for a status that is none of success."""
        status = response.status_code
        if status < 300:
            return
        if status == 401 and self._has_key:
            raise UserFacingError(f"The Quest Chat at {self.address} does not take this key. Check --api-key.")
        if status == 401:
            raise UserFacingError(
                f"The Quest Chat at {self.address} asks for its key: set QUEST_CHAT_API_KEY or --api-key."
            )
        if status == 404 and response.request.url.path.startswith("/v1/"):
            raise UserFacingError(
                f"The Quest Chat at {self.address} serves no API. Start it without --no-api, or leave --url out."
            )
        told = _json(response)
        sentence = _sentence(told.get("error")) if isinstance(told, dict) else ""
        is_text = response.headers.get("content-type", "").startswith("text/plain")
        if not sentence and is_text and status < 500 and len(response.text) < 500:
            sentence = response.text
        if not sentence:
            raise UserFacingError(f"{self._is_other_program()} It answered with status {status}.")
        raise UserFacingError(f"{self.address} says: {sentence}")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what goes wrong with the connection into a sentence."""
        try:
            yield
        except httpx2.ConnectError as error:
            raise UserFacingError(
                f"Nothing answers at {self.address}. Start Quest Chat there, with `python launch.py`, or omit --url."
            ) from error
        except httpx2.TimeoutException as error:
            raise UserFacingError(f"{self.address} does not answer in time. Look whether it still runs.") from error
        except httpx2.HTTPError as error:
            raise UserFacingError(self._broke_off()) from error

    def _broke_off(self) -> str:
        return f"The connection to {self.address} broke off. Look whether it still runs, and ask again."

    def _is_other_program(self) -> str:
        return f"What answers at {self.address} is not Quest Chat, or not this version of it. Check --url."


def _address(url: str) -> str:
    address = url.strip() if "://" in url else f"http://{url.strip()}"
    try:
        parts = urlsplit(address)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        httpx2.URL(address)
    except (ValueError, httpx2.InvalidURL):
        is_address = False
    if not is_address or parts.username is not None or parts.query or parts.fragment:
        raise UserFacingError(f"--url must be an address like http://127.0.0.1:7860, not {url!r}.")
    return address.rstrip("/").removesuffix("/v1").rstrip("/")


def _json(response: httpx2.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def _sentence(error: object) -> str:
    """What an error says, in OpenAI's shape or in that of the library's routes."""
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) else ""


def _seconds(response: httpx2.Response) -> float:
    try:
        return max(0.0, float(response.headers["retry-after"]))
    except ValueError:
        return 1.0


def chat_messages(system_prompt: str, turns: Sequence[tuple[str, str]], question: str) -> list[dict[str, str]]:
    """A conversation as the API takes it.

    Args:
        system_prompt: "" leaves it to the app.
        turns: earlier questions with their answers.
        question: what is asked now.
    """
    messages = [{"role": "system", "content": system_prompt}] if system_prompt else []
    for asked, answered in turns:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return [*messages, {"role": "user", "content": question}]
