"""uvicorn, made to end when it is told to, and to wait for no client that has stopped sending.

Knows nothing of what is served.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

# Streams and the answers behind them have one second (`timeout_graceful_shutdown`), all else these.
_ENDING_S = 3.0


class Server(uvicorn.Server):
    """Ends within seconds of a signal, whatever its event loop and its threads are doing.

    Args:
        config: uvicorn's.
        on_open: called when the port is open, not before.
        on_end: called when nothing is served any more, in a thread, and not waited for beyond the time there is.
            uvicorn lets a signal end the process as soon as it has served; nothing after `run` would be sure to come.
    """

    def __init__(
        self, config: uvicorn.Config, on_open: Callable[[], None], on_end: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(config)
        self._on_open = on_open
        self._on_end = on_end
        self._told_to_end = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's; then tells that the port is open."""
        await super().startup(sockets)
        if self.started:
            threading.Thread(target=self._force_end, name="server-end", daemon=True).start()
            self._on_open()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's; then tells that it is over."""
        await super().shutdown(sockets)
        await asyncio.to_thread(self._on_end)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """As uvicorn's, but not in vain."""
        super().handle_exit(sig, frame)
        self._told_to_end.set()

    def _force_end(self) -> None:
        # No thread can be stopped from outside, and one that hangs, in a handler or the loop, would hold the process.
        self._told_to_end.wait()
        time.sleep(_ENDING_S)
        os._exit(128 + self._captured_signals[0])


class TimedProtocol(H11Protocol):
    """HTTP/1.1 for clients that send: a request's head in `head_s`, of its body something every `stall_s`."""

    head_s = 30.0
    stall_s = 30.0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect(self.head_s)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.SEND_BODY:
            self._expect(self.stall_s)
        elif self.conn.their_state is not h11.IDLE:
            self._expect(None)
        elif self._deadline is None:
            # The next head on this connection has begun; it has its time in all, however it trickles in.
            self._expect(self.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._expect(None)

    def _expect(self, within_s: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if within_s is None else self.loop.call_later(within_s, self._give_up)

    def _give_up(self) -> None:
        if self.flow.read_paused:
            # It is us who are slow.
            self._expect(self.stall_s)
        else:
            self.transport.abort()
