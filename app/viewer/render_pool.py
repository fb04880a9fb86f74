"""A few render processes, and what waits for them: what was asked for last comes first.

Who scrolls through a thousand pages wants those that are in sight now, and of those that are asked for together the
first one most. A thread owns a process, from its start to its
end. Both come with the first request and go when there has been none for a while. Knows nothing of PDF.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from app.errors import explain
from app.viewer.errors import ProcessEnded, RenderBusy
from app.viewer.render_connection import RenderConnection

Job = Callable[[RenderConnection], Any]

# A browser asks for no more at once.
_MOST_BURST_JOBS = 6
# But one of so many is the oldest, or that might wait for as long as new ones come.
_OLDEST_EACH = 4
_GIVEN_UP = "So many pages were asked for after this one that it was given up. It is shown when it is asked for again."
_CLOSED = "Quest Chat is ending."


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A job that waits, and which burst of jobs it came with."""

    job: Job
    future: Future
    burst: int


class RenderPool:
    """Runs jobs with a render process each, in threads of its own.

    Args:
        processes: at most; a second one lets a page that hangs hold up no other.
        most_waiting: jobs that wait; beyond, the oldest is given up.
        idle_s: without a job for so long, a process ends.
        burst_s: jobs that come no further apart are asked for together, up to a screenful, and done in their order.
    """

    def __init__(self, processes: int = 2, most_waiting: int = 48, idle_s: float = 300.0, burst_s: float = 0.1) -> None:
        self._processes = processes
        self._most_waiting = most_waiting
        self._idle_s = idle_s
        self._burst_s = burst_s
        self._state = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._burst = self._burst_jobs = 0
        self._asked_at = 0.0
        self._threads: set[threading.Thread] = set()
        self._connections: set[RenderConnection] = set()
        self._idle = 0
        self._taken = 0
        self._closed = False

    def run(self, job: Job) -> Future:
        """Let a thread call `job(connection)` with a process that it may ask; a cancelled one that waits is left out.

        Returns:
            What the job returns or raises; `RenderBusy` if it is given up.
        """
        future: Future = Future()
        with self._state:
            if self._closed:
                future.set_exception(RenderBusy(_CLOSED))
                return future
            now = time.monotonic()
            if now - self._asked_at >= self._burst_s or self._burst_jobs == _MOST_BURST_JOBS:
                self._burst, self._burst_jobs = self._burst + 1, 0
            self._burst_jobs += 1
            self._asked_at = now
            self._waiting.append(_Waiting(job, future, self._burst))
            if len(self._waiting) > self._most_waiting:
                self._waiting = deque(one for one in self._waiting if not one.future.cancelled())
            given_up = self._waiting.popleft().future if len(self._waiting) > self._most_waiting else None
            if len(self._waiting) > self._idle and len(self._threads) < self._processes:
                thread = threading.Thread(target=self._work, name="render", daemon=True)
                self._threads.add(thread)
                thread.start()
            self._state.notify()
        if given_up is not None and given_up.set_running_or_notify_cancel():
            given_up.set_exception(RenderBusy(_GIVEN_UP))
        return future

    def end_processes(self) -> None:
        """End all processes: no file is open afterwards. What they were doing is done by new ones."""
        with self._state:
            for connection in self._connections:
                connection.end()

    def close(self) -> None:
        """End all, and wait for that; further calls do nothing."""
        with self._state:
            self._closed = True
            waiting, threads = list(self._waiting), list(self._threads)
            self._waiting.clear()
            for connection in self._connections:
                connection.end()
            self._state.notify_all()
        for one in waiting:
            one.future.cancel()
        for thread in threads:
            thread.join()

    def _work(self) -> None:
        """Run jobs until there is none for long."""
        connection = None
        try:
            while True:
                if not self._closed:
                    # Before there is a job: the next one need not wait for a process to start. It is told if none does.
                    with suppress(OSError):
                        connection = self._usable(connection)
                taken = self._next_job()
                if taken is None:
                    return
                future = taken.future
                if not future.set_running_or_notify_cancel():
                    continue
                while True:
                    try:
                        connection = self._usable(connection)
                        future.set_result(taken.job(connection))
                    except ProcessEnded:
                        if not self._closed:
                            continue
                        future.set_exception(RenderBusy(_CLOSED))
                    except Exception as error:
                        future.set_exception(explain(error, "Showing a document page"))
                    break
        finally:
            with self._state:
                self._threads.discard(threading.current_thread())
            self._end(connection)

    def _usable(self, connection: RenderConnection | None) -> RenderConnection:
        """The connection, or a new one in its place."""
        if connection is not None and connection.is_usable:
            return connection
        self._end(connection)
        connection = RenderConnection()
        with self._state:
            self._connections.add(connection)
        return connection

    def _end(self, connection: RenderConnection | None) -> None:
        if connection is not None:
            connection.close()
            with self._state:
                self._connections.discard(connection)

    def _next_job(self) -> _Waiting | None:
        """The first of the jobs that were asked for last, in general; None if it is time to end."""
        with self._state:
            self._idle += 1
            try:
                self._state.wait_for(lambda: self._waiting or self._closed, self._idle_s)
            finally:
                self._idle -= 1
            if self._closed or not self._waiting:
                # Here, so that nobody counts on this thread any more.
                self._threads.discard(threading.current_thread())
                return None
            self._taken += 1
            if self._taken % _OLDEST_EACH == 0:
                return self._waiting.popleft()
            burst = self._waiting[-1].burst
            chosen = next(one for one in self._waiting if one.burst == burst)
            self._waiting.remove(chosen)
            return chosen
