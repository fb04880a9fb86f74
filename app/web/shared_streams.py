"""Event streams of all tabs of a browser over one connection.

A browser opens six connections to a server, in all its tabs together, and a stream holds one as long as it lasts: with
telemetry and an answer in three tabs, the fourth hangs. So a browser opens one stream here and says, in requests that
end at once, which others it wants on it. Those are asked of the app itself, as if the browser had. What the browser's
half does is in `assets/js/streams/stream-worker.js`; what the streams tell, nobody here knows.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Message, Scope

# The streams that a page holds open.
_SHARED = re.compile(r"/gradio_api/queue/data|/gradio_api/upload_progress|/telemetry/[^/]+/events")
_MAX_STREAMS = 256
# Lines that wait for a slow browser; beyond, the streams wait, and look again so often.
_WAITING_LINES = 64
_WAITING_S = 0.05
_KEEP_ALIVE_S = 15.0
_SCOPE_KEYS = ("type", "asgi", "http_version", "scheme", "server", "client", "root_path", "state", "headers")


@dataclass
class _Connection:
    """A browser's one stream, and the tasks that fill it, by the browser's number for each."""

    lines: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    tasks: dict[int, asyncio.Task] = field(default_factory=dict)

    def put(self, number: int, **what: object) -> None:
        self.lines.put_nowait(json.dumps({"stream": number} | what) + "\n")

    def ended(self, number: int, task: asyncio.Task) -> None:
        del self.tasks[number]
        self.put(number, end=True)
        if not task.cancelled():
            # Retrieved, or it is reported as lost; the browser is told no more of it than of any other failure.
            task.exception()


def add_shared_streams(app: FastAPI) -> None:
    """Serve `/streams/{connection}`: GET is the stream, POST and DELETE of a number below it add and end one on it.

    A line is JSON: {} to begin and to keep alive, {"stream": number, and either "status" or "text" or "end"}.
    """
    connections: dict[str, _Connection] = {}

    @app.get("/streams/{connection_id}")
    async def connect(connection_id: str) -> Response:
        if connection_id in connections:
            return Response(status_code=409)

        async def lines() -> AsyncIterator[str]:
            connection = connections[connection_id] = _Connection()
            try:
                yield "{}\n"
                while True:
                    try:
                        yield await asyncio.wait_for(connection.lines.get(), _KEEP_ALIVE_S)
                    except asyncio.TimeoutError:
                        yield "{}\n"
            finally:
                del connections[connection_id]
                for task in connection.tasks.values():
                    task.cancel()

        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(lines(), media_type="application/x-ndjson", headers=headers)

    @app.post("/streams/{connection_id}/{number}")
    async def add(connection_id: str, number: int, address: str, request: Request) -> Response:
        connection = connections.get(connection_id)
        path, query = urlsplit(address).path, urlsplit(address).query
        if connection is None or number in connection.tasks or not _SHARED.fullmatch(path):
            return Response(status_code=404)
        if len(connection.tasks) >= _MAX_STREAMS:
            return Response(status_code=429)
        scope = {key: request.scope[key] for key in _SCOPE_KEYS if key in request.scope}
        scope |= {"method": "GET", "path": path, "raw_path": path.encode(), "query_string": query.encode()}
        task = connection.tasks[number] = asyncio.create_task(_forward(app, scope, connection, number))
        task.add_done_callback(lambda task: connection.ended(number, task))
        return Response(status_code=204)

    @app.delete("/streams/{connection_id}/{number}")
    async def end(connection_id: str, number: int) -> Response:
        connection = connections.get(connection_id)
        if connection is not None and number in connection.tasks:
            connection.tasks[number].cancel()
        return Response(status_code=204)


async def _forward(app: FastAPI, scope: Scope, connection: _Connection, number: int) -> None:
    """Ask the app for a stream and put what it answers on the connection."""
    asked = False

    async def receive() -> Message:
        nonlocal asked
        if asked:
            # The end of the browser's interest cancels this task.
            await asyncio.Event().wait()
        asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        while connection.lines.qsize() >= _WAITING_LINES:
            await asyncio.sleep(_WAITING_S)
        if message["type"] == "http.response.start":
            connection.put(number, status=message["status"])
        elif text := message.get("body", b"").decode():
            connection.put(number, text=text)

    await app(scope, receive, send)
