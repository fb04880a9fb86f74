"""Priorities: who goes first, who waits, and what a paused job may expect."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from quest_core.engine import Engine
from quest_core.jobs import JobQueue, Priority


class Steps:
    """Background work that waits for permission before each event, but not for ever."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.go = threading.Semaphore(0)
        self.cancelled_after: int | None = None
        self.threads: set[int] = set()

    def __call__(self, cancellation) -> Iterator[int]:
        for number in range(self.count):
            if cancellation.requested:
                self.cancelled_after = number
                return
            if not self.go.acquire(timeout=10):
                raise TimeoutError("nobody permits the next event")
            self.threads.add(threading.get_ident())
            yield number

    def release(self, count: int = 1) -> None:
        for _ in range(count):
            self.go.release()


def test_the_oldest_of_the_highest_priority_goes_first():
    """Without an engine, whose thread would wait for ever where the wrong job goes."""
    jobs = JobQueue()
    order = (Priority.BACKGROUND, Priority.ANSWER, Priority.BACKGROUND, Priority.ANSWER)
    first, second, third, fourth = (jobs.submit(iter, priority) for priority in order)
    for expected in (second, fourth, first, third):
        assert jobs.wait() is expected
        assert jobs.jobs_ahead(expected) == 0
        assert not jobs.must_pause(expected)
        jobs.remove(expected)
    jobs.close()
    assert jobs.wait() is None


def test_a_background_job_is_paused_while_an_answer_waits_and_goes_on_afterwards(tiny_engine):
    steps, ran = Steps(3), []
    background = tiny_engine.submit(steps, Priority.BACKGROUND)
    steps.release()
    assert background.next_event(10) == 0
    answer = tiny_engine.submit(lambda cancellation: iter([ran.append(steps.go._value), "answer"]))
    assert answer.jobs_ahead == 0  # the background job is none: it waits as soon as it can
    assert background.jobs_ahead == 1
    steps.release()  # it is in the middle of a step, after which it pauses
    assert list(answer)[-1] == "answer"
    assert not background.done
    steps.release()
    assert list(background) == [1, 2]
    assert background.done and background.jobs_ahead == 0
    assert len(steps.threads) == 1


def test_answers_go_before_background_jobs_that_were_submitted_sooner(tiny_engine):
    release, ran = threading.Event(), []

    def blocking(cancellation):
        release.wait(10)
        yield from ()

    def noting(name):
        def work(cancellation):
            ran.append(name)
            yield name

        return work

    first = tiny_engine.submit(blocking)
    jobs = [
        tiny_engine.submit(noting(name), priority)
        for name, priority in (
            ("b1", Priority.BACKGROUND), ("a1", Priority.ANSWER), ("b2", Priority.BACKGROUND), ("a2", Priority.ANSWER)
        )
    ]  # fmt: skip
    assert [job.jobs_ahead for job in jobs] == [3, 1, 4, 2]
    release.set()
    for job in (first, *jobs):
        list(job)
    assert ran == ["a1", "a2", "b1", "b2"]


def test_answers_are_not_paused_for_each_other(tiny_engine):
    steps, ran = Steps(3), []
    first = tiny_engine.submit(steps)
    steps.release()
    assert first.next_event(10) == 0
    second = tiny_engine.submit(lambda cancellation: iter([ran.append(first.done)]))
    steps.release(2)
    assert list(first) == [1, 2]
    list(second)
    assert ran == [True]


def test_a_paused_job_can_be_cancelled(tiny_engine):
    steps, release = Steps(5), threading.Event()
    background = tiny_engine.submit(steps, Priority.BACKGROUND)
    steps.release()
    assert background.next_event(10) == 0

    def answering(cancellation):
        release.wait(10)
        yield "answer"

    answer = tiny_engine.submit(answering)
    steps.release()
    assert background.next_event(10) == 1
    background.cancel()
    assert not background.done
    release.set()
    assert list(answer) == ["answer"]
    assert list(background) == []
    assert steps.cancelled_after == 2


def test_closing_ends_paused_jobs(tiny_folder):
    from quest_core.config import EngineConfig

    engine = Engine.load(str(tiny_folder), EngineConfig(device="cpu", dtype="float32"))
    steps, begun = Steps(5), threading.Event()
    background = engine.submit(steps, Priority.BACKGROUND)
    steps.release()
    assert background.next_event(10) == 0

    def answering(cancellation):
        begun.set()
        while not cancellation.requested:
            yield "waiting"

    answer = engine.submit(answering)
    steps.release()
    assert begun.wait(10)
    engine.close()
    assert background.done and answer.done
    assert steps.cancelled_after == 2
    with pytest.raises(RuntimeError, match="closed"):
        engine.submit(steps)


def test_an_error_in_background_work_reaches_its_consumer_alone(tiny_engine):
    def failing(cancellation):
        yield 1
        raise ValueError("on purpose")

    background = tiny_engine.submit(failing, Priority.BACKGROUND)
    assert next(background) == 1
    with pytest.raises(ValueError, match="on purpose"):
        next(background)
    assert list(tiny_engine.submit(lambda cancellation: iter([7]), Priority.BACKGROUND)) == [7]
