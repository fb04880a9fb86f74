"""One handler writes a tab's messages, and the end of what a tab has asked reaches it once."""

from __future__ import annotations

import threading

import pytest

from app.chat.answers.answer import Queued
from app.chat.answers.running_answer import RunningAnswer
from ui.tab_follower import TabFollowers


def running(*events, error: Exception | None = None, until: threading.Event | None = None) -> RunningAnswer:
    def made(_):
        yield from events
        if until is not None:
            until.wait(10)
        if error is not None:
            raise error

    answer = RunningAnswer("Where?", "1", made)
    answer.start()
    return answer


def test_a_later_handler_waits_for_the_end_of_the_earlier_and_takes_what_is_owed():
    tabs, answer, written = TabFollowers(), running(Queued(1), until=threading.Event()), []

    def later():
        with tabs.enter("tab", 2) as follower:
            written.append(follower.unfinished_of("c"))

    with tabs.enter("tab", 1) as follower:
        events = follower.follow("c", answer)
        assert next(events) == Queued(1)
        thread = threading.Thread(target=later)
        thread.start()
        # Another tab waits for nobody.
        with tabs.enter("other", 1) as other:
            assert other.is_newest
        assert list(events) == [] and not follower.is_newest
        assert written == []
    thread.join(10)
    assert written == [answer]


def test_a_handler_that_begins_too_late_has_nothing_to_write():
    tabs = TabFollowers()
    with tabs.enter("tab", 2) as follower:
        assert follower.is_newest
    with tabs.enter("tab", 1) as follower:
        assert follower is None


def test_the_end_is_owed_once_and_in_its_conversation():
    tabs, answer = TabFollowers(), running(error=OSError("gone"))
    answer.join(10)
    tabs.owe("tab", "c", answer)
    with tabs.enter("tab", 1) as follower:
        assert follower.unfinished_of("another") is None
        with pytest.raises(OSError, match="gone"):
            list(follower.follow("c", follower.unfinished_of("c")))
    tabs.owe("tab", "c", answer)
    with tabs.enter("tab", 2) as follower:
        assert follower.unfinished_of("c") is None
