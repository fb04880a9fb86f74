"""One request answered over HTTP: waits for its place, sends what comes, and stops when the client has gone.

An answer is made in a thread of its own, which hands what it has to the event loop. So streams take none of the threads
that the page's handlers share, and whoever hangs up is noticed at once, in the queue and while a prompt is read too.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import anyio
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from app.api.admission import Admission
from app.api.answers import ApiAnswer, Delta, Outcome
from app.api.errors import ApiError
from app.api.replies import DONE, STILL_HERE, ChatReply, TextReply, event
from app.errors import UserFacingError

if TYPE_CHECKING:
    from app.api.requests import ApiRequest

_KEEP_ALIVE_S = 10.0
_STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Content-Type": "text/event-stream"}
_log = logging.getLogger(__name__)


class Exchange(Response):
    """Answers a request whose body was read.

    Args:
        request: what is asked.
        answer: not begun.
        reply: writes it.
        admission: gives it a place.
        client: who takes turns with others.
    """

    def __init__(
        self, request: ApiRequest, answer: ApiAnswer, reply: ChatReply | TextReply, admission: Admission, client: str
    ) -> None:
        super().__init__()
        self._request = request
        self._answer = answer
        self._reply = reply
        self._admission = admission
        self._client = client

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_until_gone, receive, tasks.cancel_scope)
            try:
                await self._run(scope, receive, send)
            except OSError:
                pass  # the client has gone
            tasks.cancel_scope.cancel()

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._admission.enter(self._client)
        except ApiError as error:
            await error_reply(error)(scope, receive, send)
            return
        made = _Making(self._answer, self._admission)
        try:
            error = await made.begun()
            if error is not None:
                await error_reply(error)(scope, receive, send)
            elif self._request.stream:
                await self._stream(made, send)
            else:
                await self._send_whole(made, scope, receive, send)
        finally:
            self._answer.cancel()

    async def _send_whole(self, made: _Making, scope: Scope, receive: Receive, send: Send) -> None:
        async for item in made.items():
            if isinstance(item, Delta):
                self._reply.add(item)
            elif isinstance(item, Outcome):
                await JSONResponse(self._reply.whole(item))(scope, receive, send)
                return
            elif isinstance(item, ApiError):
                await error_reply(item)(scope, receive, send)
                return

    async def _stream(self, made: _Making, send: Send) -> None:
        headers = [(name.lower().encode(), value.encode()) for name, value in _STREAM_HEADERS.items()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

        async def write(*chunks: bytes) -> None:
            await send({"type": "http.response.body", "body": b"".join(chunks), "more_body": True})

        if (first := self._reply.first()) is not None:
            await write(event(first))
        async for item in made.items():
            if item is None:
                await write(STILL_HERE)
            elif isinstance(item, Delta):
                if (chunk := self._reply.add(item)) is not None:
                    await write(event(chunk))
            elif isinstance(item, Outcome):
                await write(*map(event, self._reply.last(item)))
            else:
                await write(event(item.to_json()))
        await write(DONE)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Making:
    """An answer on its way in a thread; its place is given back when the thread has ended."""

    def __init__(self, answer: ApiAnswer, admission: Admission) -> None:
        self._answer = answer
        self._admission = admission
        self._loop = asyncio.get_running_loop()
        self._begun: asyncio.Future[ApiError | None] = self._loop.create_future()
        self._items: asyncio.Queue[Delta | Outcome | ApiError] = asyncio.Queue()
        threading.Thread(target=self._make, name="api-answer", daemon=True).start()

    async def begun(self) -> ApiError | None:
        """Wait until the answer has begun; returns why it could not."""
        return await self._begun

    async def items(self) -> AsyncIterator[Delta | Outcome | ApiError | None]:
        """What comes, the last an outcome or an error; None where nothing comes for a while."""
        while True:
            try:
                item = await asyncio.wait_for(self._items.get(), _KEEP_ALIVE_S)
            except asyncio.TimeoutError:
                yield None
                continue
            yield item
            if not isinstance(item, Delta):
                return

    def _make(self) -> None:
        last: Outcome | ApiError | None = None
        try:
            self._answer.begin()
            self._tell(self._set_begun, None)
            for item in self._answer:
                if isinstance(item, Outcome):
                    last = item
                else:
                    self._tell(self._items.put_nowait, item)
        except ApiError as error:
            last = error
        except UserFacingError as error:
            last = ApiError(500, error.message, None, "engine_error")
        except Exception as error:  # whoever waits must hear of it
            _log.error("an answer of the API failed", exc_info=error)
            last = ApiError(500, "The answer failed on an error in Quest Chat. The terminal has the details.")
        if last is None:
            last = ApiError(500, "The answer was stopped.", None, "stopped")
        self._tell(self._end, last)

    def _end(self, last: Outcome | ApiError) -> None:
        if not self._begun.done():
            self._begun.set_result(last if isinstance(last, ApiError) else None)
        self._items.put_nowait(last)
        self._admission.leave()

    def _set_begun(self, error: ApiError | None) -> None:
        if not self._begun.done():
            self._begun.set_result(error)

    def _tell(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            self._answer.cancel()  # the server has ended, and nobody waits any more


async def _until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def error_reply(error: ApiError) -> JSONResponse:
    """An error as a response."""
    return JSONResponse(error.to_json(), error.status, error.headers)
