"""Work for the engine's one thread: jobs by priority, each of which yields events to whoever waits for them.

Jobs of one priority run first in, first out. A background job is paused at its yields while an answer waits, and goes
on afterwards. Knows nothing of models, sessions or devices.
"""

from __future__ import annotations

import enum
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

_END = object()


class Priority(enum.IntEnum):
    """What goes first; BACKGROUND work must bear that others use the device, and the page pool, between its events."""

    BACKGROUND = 0
    ANSWER = 1


class Cancellation:
    """Whether whoever waits for a job still wants its result: set by the consumer, read by the work between steps."""

    def __init__(self) -> None:
        self._event = threading.Event()

    @property
    def requested(self) -> bool:
        return self._event.is_set()

    def request(self) -> None:
        self._event.set()


Work = Callable[[Cancellation], Iterator[Any]]


class Job:
    """Work on the engine's thread. Iterate it for the events the work yields; its exceptions are raised here."""

    def __init__(self, work: Work, priority: Priority, number: int, jobs: JobQueue) -> None:
        self.priority = priority
        self.number = number  # from 1 on, in the order of submission
        self.done = False
        self._work = work
        self._jobs = jobs
        self._events: queue.SimpleQueue = queue.SimpleQueue()
        self._cancellation = Cancellation()
        self._error: BaseException | None = None
        self._running: Iterator[Any] | None = None  # once begun

    def cancel(self) -> None:
        """Ask the work to stop at its next chance; a job that has not started never will."""
        self._cancellation.request()

    @property
    def jobs_ahead(self) -> int:
        """Jobs that go before this one goes on; 0 when it runs, is the next, or is done."""
        return self._jobs.jobs_ahead(self)

    def next_event(self, timeout_s: float | None = None) -> Any:
        """Wait for the next event.

        Raises:
            TimeoutError: after `timeout_s`.
            StopIteration: when there are no more.
        """
        try:
            event = self._events.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError from None
        if event is _END:
            self._events.put(_END)  # so that asking again does not wait forever
            if self._error is not None:
                raise self._error
            raise StopIteration
        return event

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self.next_event()

    def run(self, pause: Callable[[], bool]) -> None:
        """Work until the end, or until `pause` says so after an event; only on the engine's thread."""
        try:
            if self._running is None:
                if self._cancellation.requested:
                    self._finish()
                    return
                self._running = iter(self._work(self._cancellation))
            for event in self._running:
                self._events.put(event)
                if pause():
                    return
        except BaseException as error:  # it belongs to whoever waits for the job
            self._error = error
        self._finish()

    def _finish(self) -> None:
        # What the work still holds goes now, not when the last consumer has gone.
        self._running = None
        self.done = True
        self._events.put(_END)


class JobQueue:
    """Jobs that wait, are paused or run; the first to go is the oldest of the highest priority."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []
        self._changed = threading.Condition()
        self._closed = False
        self._submitted = 0

    def submit(self, work: Work, priority: Priority) -> Job:
        """Queue `work`.

        Raises:
            RuntimeError: after `close`.
        """
        with self._changed:
            if self._closed:
                raise RuntimeError("the engine is closed")
            self._submitted += 1
            job = Job(work, priority, self._submitted, self)
            self._jobs.append(job)
            self._changed.notify_all()
        return job

    def close(self) -> None:
        """Take no more jobs, and cancel those there are."""
        with self._changed:
            self._closed = True
            for job in self._jobs:
                job.cancel()
            self._changed.notify_all()

    def wait(self) -> Job | None:
        """The job that goes next, waiting for one; None when the queue is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            # The first of those with the highest priority.
            return max(self._jobs, key=lambda job: job.priority, default=None)

    def must_pause(self, job: Job) -> bool:
        """Whether another job goes before `job`, which runs."""
        # Without the lock: a list is read in one piece, and an answer that is missed now is seen at the next event.
        return job.priority < Priority.ANSWER and any(other.priority > job.priority for other in list(self._jobs))

    def remove(self, job: Job) -> None:
        with self._changed:
            self._jobs.remove(job)

    def jobs_ahead(self, job: Job) -> int:
        with self._changed:
            if job.done:
                return 0
            others = [other for other in self._jobs if not other.done]
            before = sum(other.priority == job.priority and other.number < job.number for other in others)
            return before + sum(other.priority > job.priority for other in others)
