"""Which handler writes a tab's messages: always one, and the one that was asked last.

An answer belongs to the server, and any number of tabs follow it. A tab asks anew whenever something has changed, also
while it follows an answer already; then the earlier handler ends before the later one writes its first message. Knows
nothing of what is shown.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from app.chat.answers.answer import AnswerEvent
from app.chat.answers.running_answer import AnswerFollower, RunningAnswer

# Tabs that vanish say nothing; so many are remembered.
_MAX_TABS = 1024
# The earlier handler waits for nothing but its browser, which takes an update within milliseconds, or is gone.
_HANDOVER_S = 5.0


class TabFollower:
    """One handler's permission to write a tab's messages.

    Args:
        number: the tab's own count of what it asked for.

    Attributes:
        number: as given.
        ended: set when the handler writes nothing more.
        unfinished: conversation and answer whose end the tab has not been told yet, also by the handler before.
        told: the last answer whose end it has been told.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.ended = threading.Event()
        self.unfinished: tuple[str, RunningAnswer] | None = None
        self.told: RunningAnswer | None = None
        self._lock = threading.Lock()
        self._is_newest = True
        self._events: AnswerFollower | None = None

    @property
    def is_newest(self) -> bool:
        """Whether no later handler waits for this one's end."""
        return self._is_newest

    def unfinished_of(self, conversation_id: str) -> RunningAnswer | None:
        """The unfinished answer, if it is one of that conversation."""
        if self.unfinished is None or self.unfinished[0] != conversation_id or self.unfinished[1] is self.told:
            return None
        return self.unfinished[1]

    def follow(self, conversation_id: str, running: RunningAnswer) -> Iterator[AnswerEvent]:
        """The events of a conversation's running answer; ends early when a later handler comes.

        Raises:
            BaseException: what ended the answer.
        """
        self.unfinished = conversation_id, running
        with self._lock:
            if not self._is_newest:
                return
            self._events = running.follow()
        try:
            yield from self._events
        finally:
            self._events.close()
            if self._is_newest:
                self.told, self.unfinished = running, None

    def give_way(self) -> None:
        """Called by a later handler, which then waits for `ended`."""
        with self._lock:
            self._is_newest = False
            if self._events is not None:
                self._events.close()


class TabFollowers:
    """The handlers of all tabs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: OrderedDict[str, TabFollower] = OrderedDict()

    def owe(self, tab: str, conversation_id: str, running: RunningAnswer) -> None:
        """The tab has asked: it is to be told of the answer's end, however quickly that comes."""
        with self._lock:
            follower = self._newest.get(tab)
            if follower is None:
                follower = self._newest[tab] = TabFollower(-1)
                follower.ended.set()
            if follower.told is not running and follower.unfinished is None:
                follower.unfinished = conversation_id, running

    @contextmanager
    def enter(self, tab: str, number: int) -> Iterator[TabFollower | None]:
        """Become the one that writes a tab's messages, once the one before has ended.

        Args:
            tab: names the tab.
            number: grows with each request of the tab: threads may begin in another order.

        Yields:
            The permission, or None if a later handler has come already.
        """
        follower = TabFollower(number)
        with self._lock:
            before = self._newest.get(tab)
            if before is None or before.number <= number:
                self._newest[tab] = follower
                self._newest.move_to_end(tab)
                while len(self._newest) > _MAX_TABS:
                    self._newest.popitem(last=False)
            else:
                follower, before = None, None
        if follower is None:
            yield None
            return
        try:
            if before is not None:
                before.give_way()
                before.ended.wait(_HANDOVER_S)
                follower.told = before.told
                follower.unfinished, before.unfinished = before.unfinished, None
            # A still later one may have come while this one waited.
            yield follower if follower.is_newest else None
        finally:
            follower.ended.set()
