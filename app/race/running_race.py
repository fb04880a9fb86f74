"""A race or a sweep that belongs to the server: a thread makes it, and tells the tabs what each event adds.

What has come so far is in its record, for whoever comes later. Knows nothing of how races are made.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from app.errors import UserFacingError, explain
from app.race.kept_record import KeptRecord

# Tokens are told together that come within that time: a picture shows no more.
_TELL_EVERY_S = 0.05


class RunningRace:
    """A race that is being made, or has been.

    Args:
        record: takes the events.
        events: makes them; run once, in a thread of its own.
        tell: takes what the tabs are told: {"type": "race", "race_id", "kind", "tokens", and what has changed}. By a
            token's "side" and "number" a tab knows whether it has missed any.
        release: called at the end, before that is told.
    """

    def __init__(
        self,
        record: KeptRecord,
        events: Callable[[], Iterator[Any]],
        tell: Callable[[dict[str, Any]], None],
        release: Callable[[], None],
    ) -> None:
        self.record = record
        self._events = events
        self._tell = tell
        self._release = release
        self._lock = threading.Lock()
        self._telling = threading.RLock()
        self._tokens: list[dict[str, Any]] = []
        self._told_at = 0.0
        self._thread = threading.Thread(target=self._run, name="race", daemon=True)

    def start(self) -> None:
        """Begin to make it; once."""
        self._thread.start()

    def join(self, timeout_s: float | None = None) -> None:
        """Wait for its end."""
        self._thread.join(timeout_s)

    def summary(self) -> dict[str, Any]:
        """A line of the list of races."""
        with self._lock:
            return self.record.summary()

    def to_json(self) -> dict[str, Any]:
        """All that has come so far, as docs/race.md says."""
        with self._lock:
            return self.record.to_json()

    def _run(self) -> None:
        last: dict[str, Any] = {}
        try:
            for event in self._events():
                with self._lock:
                    last = self.record.take(event)
                if self.record.ended:
                    continue  # told when the conversation is free
                if "token" in last:
                    self._tell_token(last)
                else:
                    self._tell_changes(last)
        except UserFacingError as error:
            last = self._fail(error.message)
        except Exception as error:  # whatever it is: the tabs must not wait for ever
            last = self._fail(str(explain(error, "The race")))
        finally:
            self._release()
        self._tell_changes(last)

    def _fail(self, sentence: str) -> dict[str, Any]:
        with self._lock:
            return self.record.fail(sentence)

    def _tell_token(self, token: dict[str, Any]) -> None:
        """Tell of a token at once, or soon together with those that come meanwhile."""
        with self._telling:
            self._tokens.append(token)
            waits_s = self._told_at + _TELL_EVERY_S - time.monotonic()
            is_first_waiting = len(self._tokens) == 1
        if waits_s <= 0:
            self._tell_changes({"state": self.record.state})
        elif is_first_waiting:
            timer = threading.Timer(waits_s, self._tell_waiting)
            timer.daemon = True
            timer.start()

    def _tell_waiting(self) -> None:
        with self._telling:
            if self._tokens and not self.record.ended:
                self._tell_changes({"state": self.record.state})

    def _tell_changes(self, changes: dict[str, Any]) -> None:
        with self._telling:
            tokens, self._tokens = self._tokens, []
            self._told_at = time.monotonic()
            self._tell(
                {
                    "type": "race",
                    "race_id": self.record.race_id,
                    "kind": self.record.KIND,
                    "tokens": tokens,
                    **changes,
                }
            )
