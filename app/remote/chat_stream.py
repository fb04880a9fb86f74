"""One question to another engine, and what it says, piece by piece.

Speaks the streamed chat completions of OpenAI's API. The connection lives in a thread with an event loop of its own,
so that it can be closed at any moment, also while the server is silent. Knows nothing of prompts or answers.
"""

from __future__ import annotations

import asyncio
import json
import queue
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from app.errors import explain
from app.remote.server_address import ServerAddress
from app.remote.server_errors import ServerError, cut_off, message_in, moved, of_status, silent, stranger, unreachable

CONNECT_S = 10.0
# A long prompt may be read for minutes before the first word.
SILENCE_S = 300.0
# How often it is told that a server is still silent.
_TOLD_EVERY_S = 1.0
# One that is busy is asked again after so many seconds, unless it says after how many.
_RETRY_S = (1.0, 3.0, 8.0)
_LONGEST_RETRY_S = 60.0
_MOST_ERROR_BYTES = 1 << 16
_MOST_EVENT_BYTES = 1 << 22


@dataclass(frozen=True)
class Waiting:
    """Nothing has come for `silence_s` seconds; `busy` says why it will be asked again, "" if it has been asked."""

    silence_s: float
    busy: str = ""


@dataclass(frozen=True)
class Piece:
    """What the server has said since the last one.

    Args:
        text: of the answer.
        thinking: of a thought before it, from a server that tells them apart.
        finish_reason: why it ends, in the API's words; "" while it goes on.
        usage: the API's "usage"; None until it is told.
    """

    text: str = ""
    thinking: str = ""
    finish_reason: str = ""
    usage: dict[str, Any] | None = None


class ChatStream:
    """Asks once, and iterates over `Waiting` and `Piece`; a context manager, which closes the connection.

    Args:
        address: of the server.
        body: of the request, with "model" and "messages".

    Raises:
        ServerError: while it is iterated over.
    """

    def __init__(self, address: ServerAddress, body: dict[str, Any]) -> None:
        self._address = address
        self._body = body
        self._said: queue.SimpleQueue[Waiting | Piece | Exception | None] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="remote-engine", daemon=True)
        self._thread.start()

    def __enter__(self) -> ChatStream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, by which the server learns that nobody listens; further calls do nothing."""
        self._closed = True
        with suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(lambda: self._task and self._task.cancel())

    def next(self, timeout_s: float) -> Waiting | Piece | None:
        """What comes next; None if nothing does in that time.

        Raises:
            StopIteration: all was said.
            ServerError: whatever stops it.
        """
        try:
            said = self._said.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if said is None:
            raise StopIteration
        if isinstance(said, Exception):
            raise said
        return said

    def __iter__(self) -> Iterator[Waiting | Piece]:
        while True:
            try:
                said = self.next(_TOLD_EVERY_S)
            except StopIteration:
                return
            if said is not None:
                yield said

    def _run(self) -> None:
        try:
            self._task = self._loop.create_task(self._ask())
            if not self._closed:
                self._loop.run_until_complete(self._task)
            self._said.put(None)
        except asyncio.CancelledError:
            self._said.put(None)
        except ServerError as error:
            self._said.put(error)
        except Exception as error:  # whoever waits must hear of it, whatever it is
            self._said.put(explain(error, "The answer"))
        finally:
            self._loop.run_until_complete(self._wind_up())
            self._loop.close()

    async def _wind_up(self) -> None:
        """Let come to its end what the answer has left: streams that were not read to theirs, and who tells silence."""
        await self._loop.shutdown_asyncgens()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _ask(self) -> None:
        timeout = httpx2.Timeout(SILENCE_S, connect=CONNECT_S)
        async with httpx2.AsyncClient(
            timeout=timeout, trust_env=not self._address.is_local, headers=self._address.headers
        ) as client:
            telling = asyncio.ensure_future(self._tell_silence())
            try:
                for retry_s in (*_RETRY_S, None):
                    busy = await self._ask_once(client)
                    if busy is None:
                        return
                    error, wanted_s = busy
                    if retry_s is None:
                        raise error
                    await self._wait_for_turn(error, retry_s if wanted_s is None else min(wanted_s, _LONGEST_RETRY_S))
            finally:
                telling.cancel()

    async def _tell_silence(self) -> None:
        self._heard = time.monotonic()
        while True:
            await asyncio.sleep(_TOLD_EVERY_S)
            if (silence_s := time.monotonic() - self._heard) >= _TOLD_EVERY_S:
                self._said.put(Waiting(silence_s))

    async def _wait_for_turn(self, error: ServerError, wait_s: float) -> None:
        self._said.put(Waiting(0.0, f"{error.problem} It is asked again in {wait_s:.0f} s"))
        self._heard = time.monotonic() + wait_s
        await asyncio.sleep(wait_s)

    async def _ask_once(self, client: httpx2.AsyncClient) -> tuple[ServerError, float | None] | None:
        """Tell all that is said; returns why it was not, and in how many seconds it may be, of a server that is busy.

        Raises:
            ServerError: for whatever else stops it.
        """
        address, has_begun = self._address, False
        try:
            async with client.stream("POST", f"{address.base}/chat/completions", json=self._body) as response:
                if response.status_code in (429, 503):
                    body = await _beginning(response)
                    error = of_status(address, response.status_code, body)
                    return error, _retry_after_s(response.headers.get("retry-after", ""))
                if response.is_redirect:
                    raise moved(address, _host_of(response.headers.get("location", "")))
                if response.status_code != 200:
                    body = await _beginning(response)
                    raise of_status(address, response.status_code, body, self._body.get("model", ""))
                kind = response.headers.get("content-type", "").partition(";")[0].strip()
                if kind == "application/json":
                    # One that does not stream says all at once.
                    self._take(await _beginning(response, _MOST_EVENT_BYTES), "message")
                    return None
                if kind == "text/html":
                    raise stranger(address, "answers with a web page")
                is_complete = False
                async for data in _events(address, response):
                    self._heard = time.monotonic()
                    if data == "[DONE]":
                        is_complete = True
                        break
                    has_begun = True
                    is_complete |= self._take(data, "delta")
                if not is_complete:
                    raise cut_off(address) if has_begun else stranger(address, "says nothing")
                return None
        except httpx2.ReadTimeout as error:
            raise silent(address, SILENCE_S) from error
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise unreachable(address, error) from error
        except httpx2.HTTPError as error:
            raise (cut_off(address) if has_begun else unreachable(address, error)) from error

    def _take(self, data: bytes | str, where: str) -> bool:
        """Tell what an event says; returns whether it is the answer's last word.

        Raises:
            ServerError: an error, or no event of this API.
        """
        try:
            values = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise stranger(self._address, "sends what is no JSON") from error
        if isinstance(values, dict) and "error" in values and not values.get("choices"):
            body = json.dumps({"error": message_in(values) or values["error"]}).encode()
            raise of_status(self._address, _status_in(values), body, self._body.get("model", ""))
        if not isinstance(values, dict) or not isinstance(values.get("choices", []), list):
            raise stranger(self._address, "sends JSON of another kind")
        choice = values["choices"][0] if values.get("choices") else {}
        said = choice.get(where) if isinstance(choice, dict) else None
        if where == "message" and not isinstance(said, dict):
            raise stranger(self._address, "sends JSON of another kind")
        said = said if isinstance(said, dict) else {}
        usage = values.get("usage")
        finish_reason = choice.get("finish_reason") if isinstance(choice, dict) else None
        piece = Piece(
            _text_of(said.get("content")),
            _text_of(said.get("reasoning_content")) or _text_of(said.get("reasoning")),
            finish_reason if isinstance(finish_reason, str) else "",
            usage if isinstance(usage, dict) else None,
        )
        if piece != Piece():
            self._said.put(piece)
        return bool(piece.finish_reason)


async def _beginning(response: httpx2.Response, most_bytes: int = _MOST_ERROR_BYTES) -> bytes:
    """A body, or as much of it as anybody wants to see."""
    body = b""
    async for part in response.aiter_bytes():
        body += part
        if len(body) >= most_bytes:
            break
    return body[:most_bytes]


async def _events(address: ServerAddress, response: httpx2.Response) -> AsyncIterator[str]:
    """The data of server-sent events.

    Raises:
        ServerError: an event does not end.
    """
    # Always UTF-8, whatever the header says, and a BOM may come first. Some servers name no kind, or another.
    response.encoding = "utf-8-sig"
    response.headers["content-type"] = "text/event-stream"
    try:
        async for event in httpx2.EventSource(response, max_event_size=_MOST_EVENT_BYTES):
            if data := event.data.strip():
                yield data
    except httpx2.SSEError as error:
        raise stranger(address, f"sends an event of more than {_MOST_EVENT_BYTES:,} bytes") from error


def _text_of(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _status_in(values: dict[str, Any]) -> int:
    """The status code that an error within a stream names; that of a server's own error if it names none."""
    error = values["error"]
    code = error.get("code") if isinstance(error, dict) else values.get("code")
    return code if isinstance(code, int) and 400 <= code < 600 else 500


def _retry_after_s(text: str) -> float | None:
    """Seconds that a Retry-After header names, or the time until its date."""
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _host_of(location: str) -> str:
    """Where a redirect leads, without a query, which may hold secrets."""
    try:
        url = httpx2.URL(location)
    except (httpx2.InvalidURL, TypeError):
        return ""
    return f"{url.scheme}://{url.netloc.decode('ascii', 'replace')}{url.path}" if url.host else url.path
