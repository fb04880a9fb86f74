"""Followers of an answer: where it is now, then what comes, and that watching changes nothing."""

from __future__ import annotations

import threading

import pytest

from app.chat.answers.answer import (
    DocumentReading,
    Finished,
    PassagesFound,
    PrefillEvent,
    Queued,
    TokenEvent,
)
from app.chat.answers.running_answer import RunningAnswer
from app.errors import UserFacingError
from quest_core.session_events import PrefillProgress

WORDS = ("High ", "above ", "the ", "city")
END = Finished(None)


class Script:
    """Gives events when it is told to."""

    def __init__(self) -> None:
        self._go = threading.Semaphore(0)
        self.done = threading.Event()
        self.answer = RunningAnswer("Where?", "1", self.events)

    def events(self, answer):
        text = ""
        yield Queued(2)
        self._go.acquire()
        yield PrefillEvent(PrefillProgress(0, 5, 10, 0.1), None)
        for step, word in enumerate(WORDS):
            self._go.acquire()
            text += word
            yield TokenEvent(word, text, step, 0.01, None, None)
        self.done.set()
        self._go.acquire()
        yield END

    def go(self, times=1):
        for _ in range(times):
            self._go.release()


@pytest.fixture
def script():
    script = Script()
    script.answer.start()
    yield script
    script.go(10)
    script.answer.join(30)


def test_two_followers_see_the_same_answer(script):
    one, other = script.answer.follow(), script.answer.follow()
    script.go(6)
    script.answer.join(30)
    for follower in (one, other):
        events = list(follower)
        assert events[0] == Queued(2) and events[-1] is END
        assert any(isinstance(event, PrefillEvent) for event in events)
        # Nobody read meanwhile: of the tokens only the newest is there, with the whole text as new.
        (token,) = [event for event in events if isinstance(event, TokenEvent)]
        assert (token.text_delta, token.answer, token.step) == ("High above the city", "High above the city", 3)


def test_a_slow_follower_does_not_lag_behind_progress():
    found = [PassagesFound(()), PassagesFound(())]
    read = [DocumentReading("a.pdf", share / 100) for share in range(100)]
    prefilled = [PrefillEvent(PrefillProgress(0, done, 100, 0.1), None) for done in range(100)]
    go = threading.Event()

    def events(_):
        go.wait(30)
        yield from [*read, *found, *prefilled, END]

    answer = RunningAnswer("Where?", "1", events)
    answer.start()
    follower = answer.follow()
    go.set()
    answer.join(30)
    assert list(follower) == [read[-1], *found, prefilled[-1], END]


def test_a_quick_follower_sees_each_token_and_the_deltas_make_the_answer(script):
    follower = script.answer.follow()
    assert next(follower) == Queued(2)
    script.go()
    assert isinstance(next(follower), PrefillEvent)
    deltas = []
    for _ in WORDS:
        script.go()
        deltas.append(next(follower).text_delta)
    assert tuple(deltas) == WORDS
    script.go()
    assert next(follower) is END
    with pytest.raises(StopIteration):
        next(follower)


def test_who_comes_late_gets_all_text_so_far_and_after_the_end_the_end(script):
    script.go(5)
    assert script.done.wait(30)
    late = script.answer.follow()
    first = next(late)
    assert (first.text_delta, first.step) == ("High above the city", 3)
    script.go()
    assert list(late) == [END]
    script.answer.join(30)
    assert list(script.answer.follow()) == [END]


def test_closing_a_follower_stops_nothing_and_wakes_who_waits(script):
    follower = script.answer.follow()
    next(follower)
    waiting = threading.Thread(target=lambda: list(follower))
    waiting.start()
    follower.close()
    waiting.join(30)
    assert not waiting.is_alive()
    script.go(6)
    script.answer.join(30)
    assert script.answer.ended and list(script.answer.follow()) == [END]


def test_what_ends_the_answer_is_raised_for_every_follower():
    def events(answer):
        yield Queued(1)
        raise UserFacingError("The device is lost.")

    answer = RunningAnswer("Where?", "1", events)
    early = answer.follow()
    answer.start()
    answer.join(30)
    for follower in (early, answer.follow()):
        assert next(follower) == Queued(1)
        with pytest.raises(UserFacingError, match="device is lost"):
            next(follower)
        with pytest.raises(StopIteration):
            next(follower)
