"""One document after the other is worked on in a thread, which nothing that goes wrong ends."""

from __future__ import annotations

import threading

import pytest

from app.errors import UserFacingError
from app.library.document_queue import DocumentQueue
from app.library.reader import ReadingStopped, ReadProgress

LONG_S = 20.0


class Work:
    """Notes what it is asked to do, tells that half is done, and holds each document until it may end."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str | None]] = []
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)
        self.errors: dict[str, Exception] = {}

    def __call__(self, document_id, password, on_progress, stop) -> None:
        on_progress(ReadProgress(1, 2))
        self.begun.release()
        while not self.may_end.acquire(timeout=0.01):
            if stop.is_set():
                raise ReadingStopped
        if document_id in self.errors:
            raise self.errors[document_id]
        self.done.append((document_id, password))


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def queue(work):
    queue = DocumentQueue(work, "The work", lambda: None)
    queue.start()
    yield queue
    queue.close()


def test_in_order_and_with_progress(queue, work):
    queue.put("one")
    queue.put("two", "secret")
    assert work.begun.acquire(timeout=LONG_S)
    assert queue.queued() == {"one", "two"}
    assert (queue.progress("one"), queue.progress("two")) == (0.5, None)
    queue.wait("one", 0.0)
    work.may_end.release(2)
    queue.wait("two", LONG_S)
    assert work.done == [("one", None), ("two", "secret")]
    assert queue.queued() == set() and queue.progress("two") is None


def test_a_failure_is_told_until_it_is_tried_again(queue, work):
    work.errors = {"one": UserFacingError("Too dark to read."), "two": ValueError("by hand")}
    work.may_end.release(2)
    queue.put("one")
    queue.put("two")
    queue.wait("two", LONG_S)
    assert queue.failure("one") == "Too dark to read."
    assert queue.failure("two").startswith("The work failed on an error in Quest Chat (ValueError: by hand)")
    work.errors.clear()
    work.may_end.release()
    queue.put("one")
    queue.wait("one", LONG_S)
    assert queue.failure("one") == "" and work.done == [("one", None)]


def test_what_is_stopped_is_not_done_and_the_next_is(queue, work):
    for name in ("one", "two", "three"):
        queue.put(name)
    assert work.begun.acquire(timeout=LONG_S)
    queue.stop("two")
    queue.stop("one")
    assert "one" not in queue.queued()
    queue.stop("not there")
    work.may_end.release()
    queue.wait("three", LONG_S)
    assert work.done == [("three", None)] and queue.failure("one") == ""


def test_what_comes_first_may_fail(work):
    told = threading.Event()

    def fail():
        raise OSError("full")

    queue = DocumentQueue(work, "The work", told.set, before=fail)
    queue.put("one")
    work.may_end.release()
    queue.start()
    assert told.wait(LONG_S)
    assert work.done == [("one", None)]
    queue.close()
    queue.close()
    queue.start()
    assert queue.closed
    queue.put("two")
    queue.wait("two", LONG_S)
    assert work.done == [("one", None)]
