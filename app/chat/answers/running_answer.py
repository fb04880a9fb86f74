"""An answer that belongs to the server: a thread makes it, and any number of followers watch.

Who follows gets where the answer is now, then what comes. Of tokens, and of each kind of progress, a slow follower gets
the newest; passages and the end it never misses. Closing a follower stops nothing; only cancelling the answer does.
Knows nothing of how an answer is made or kept.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType

from app.chat.answers.answer import AnswerEvent, PassagesFound, TokenEvent


class RunningAnswer:
    """An answer that is being made, or has been.

    Args:
        question: what is answered.
        turn_id: its turn in the store; the same as that of the turn it becomes.
        events: makes it; run once, in a thread of its own. Ends with `Finished` or raises.
        begun: the text that it goes on from; "" if it is a new one.

    Attributes:
        question, turn_id, begun: as given.
    """

    def __init__(
        self,
        question: str,
        turn_id: str,
        events: Callable[[RunningAnswer], Iterator[AnswerEvent]],
        begun: str = "",
    ) -> None:
        self.question = question
        self.turn_id = turn_id
        self.begun = begun
        self._events = events
        self._lock = threading.Lock()
        self._followers: list[AnswerFollower] = []
        self._latest: AnswerEvent | None = None
        self._passages: PassagesFound | None = None
        self._error: BaseException | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="answer", daemon=True)

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self._ended

    @property
    def passages_found(self) -> PassagesFound | None:
        """The passages that bear on the question, once they are found."""
        return self._passages

    def start(self) -> None:
        """Begin to make it; once."""
        self._thread.start()

    def join(self, timeout_s: float | None = None) -> None:
        """Wait for its end."""
        self._thread.join(timeout_s)

    def follow(self) -> AnswerFollower:
        """Watch it from where it is now.

        Returns:
            An iterator of `AnswerEvent`. The first are the `PassagesFound` if there are any yet, and the latest
            progress, or a `TokenEvent` with all text so far; of an answer that has ended `Finished` alone, at once. It
            ends after `Finished`, or raises what ended the answer.
        """
        follower = AnswerFollower(self)
        with self._lock:
            if self._passages not in (None, self._latest) and not self._ended:
                follower._put(self._passages)
            if self._latest is not None:
                follower._put(self._latest)
            if self._ended:
                follower._end(self._error)
            else:
                self._followers.append(follower)
        return follower

    def _run(self) -> None:
        error = None
        try:
            for event in self._events(self):
                with self._lock:
                    self._latest = event
                    if isinstance(event, PassagesFound):
                        self._passages = event
                    for follower in self._followers:
                        follower._put(event)
        except BaseException as failure:  # it belongs to the followers
            error = failure
        with self._lock:
            self._ended, self._error = True, error
            for follower in self._followers:
                follower._end(error)
            self._followers.clear()

    def _leave(self, follower: AnswerFollower) -> None:
        with self._lock:
            if follower in self._followers:
                self._followers.remove(follower)


class AnswerFollower:
    """An iterator of an answer's events; see `RunningAnswer.follow`. `text_delta` is what is new to this follower."""

    def __init__(self, answer: RunningAnswer) -> None:
        self._answer = answer
        self._arrived = threading.Condition()
        self._waiting: deque[AnswerEvent] = deque()
        self._shown_characters = 0
        self._ended = False
        self._error: BaseException | None = None

    def __iter__(self) -> AnswerFollower:
        return self

    def __next__(self) -> AnswerEvent:
        with self._arrived:
            self._arrived.wait_for(lambda: self._waiting or self._ended)
            if not self._waiting:
                # Raised once: who asks again after the end is told of nothing but that.
                error, self._error = self._error, None
                raise error or StopIteration
            event = self._waiting.popleft()
        if isinstance(event, TokenEvent):
            event = replace(event, text_delta=event.answer[self._shown_characters :])
            self._shown_characters = len(event.answer)
        return event

    def close(self) -> None:
        """Watch no longer; the answer goes on."""
        self._answer._leave(self)
        self._end(None)

    def __enter__(self) -> AnswerFollower:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _put(self, event: AnswerEvent) -> None:
        with self._arrived:
            # Each tells the whole of where the answer is. On a busy machine a page takes up to a second for an update,
            # and would lag further behind with every one.
            is_newer = self._waiting and type(self._waiting[-1]) is type(event)
            if is_newer and not isinstance(event, PassagesFound):
                self._waiting.pop()
            self._waiting.append(event)
            self._arrived.notify_all()

    def _end(self, error: BaseException | None) -> None:
        with self._arrived:
            self._ended, self._error = True, error
            self._arrived.notify_all()
