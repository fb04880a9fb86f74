"""What a race and a sweep over budgets have in common as they are kept: the request, how far it is, what it is over.

Takes their events one by one and tells what each adds. Knows nothing of threads or of who watches. See docs/race.md for
the format.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from app.chat.answers.answer import AnswerOptions, DocumentReading, ModelLoading, PrefillEvent, Queued
from app.race.race import RaceAttention, RacePlanned

VERSION = 1

RaceState = Literal["waiting", "reading", "running", "finished", "stopped", "failed"]


@dataclass(frozen=True)
class RaceRequest:
    """What is raced, or swept.

    Args:
        question: as asked.
        options: how both answer; the budget is Quest's, or that of the drafts.
        turn_id: the answer whose question it is, which is raced after the turns before it; "" for a new question,
            after all of them.
        whole_window: over as much of the documents as the window holds, without the conversation.
        budgets: of a sweep, in ascending order; empty for a race.
    """

    question: str
    options: AnswerOptions
    turn_id: str = ""
    whole_window: bool = False
    budgets: tuple[int, ...] = ()

    @property
    def attention(self) -> RaceAttention:
        """What dense attention races against, by the options: what they do not ask to be exact is Quest's."""
        return "exact" if self.options.attention == "exact" and not self.budgets else "quest"


@dataclass
class KeptRecord(ABC):
    """One race or sweep.

    Args:
        race_id: names it.
        request: what was asked.
        asked_at: seconds since 1970.
        state, message: how far it is, and a sentence about that; "" where there is nothing to say.
    """

    KIND: ClassVar[str]
    FORMAT: ClassVar[str]

    race_id: str
    request: RaceRequest
    asked_at: float = field(default_factory=time.time)
    state: RaceState = "waiting"
    message: str = ""
    _progress: dict[str, Any] | None = None
    _setting: dict[str, Any] | None = None
    _text: dict[str, Any] | None = None

    @property
    def ended(self) -> bool:
        return self.state in ("finished", "stopped", "failed")

    def take(self, event: Any) -> dict[str, Any]:
        """Note an event.

        Returns:
            What it changes, as in `to_json`; of a race's token, {"side", "number", "token"}.
        """
        if isinstance(event, RacePlanned):
            plan = event.plan
            self._setting = {"model": event.model, "device": event.device, "page_size": event.page_size}
            self._text = {
                "prompt_tokens": len(plan.token_ids),
                "text_tokens": plan.tokens_in_context,
                "document_tokens": plan.document_tokens.tokens,
                "mode": plan.mode,
            }
            self._take_plan(event)
            return self._changed("reading", "", "setting", "text")
        if isinstance(event, PrefillEvent):
            read = event.progress
            self._progress = {
                "done_tokens": read.done_tokens,
                "total_tokens": read.total_tokens,
                "reused_tokens": read.reused_tokens,
                "elapsed_s": read.elapsed_s,
                "remaining_s": event.remaining_s,
            }
            return self._changed("reading", "", "progress")
        if isinstance(event, (ModelLoading, DocumentReading, Queued)):
            return self._changed("waiting", waiting_message(event))
        return self._take_own(event)

    def fail(self, sentence: str) -> dict[str, Any]:
        """Note that it could not be made, or was stopped before anything was read."""
        return self._changed("failed", sentence)

    def summary(self) -> dict[str, Any]:
        """A line of the list of races."""
        return {
            "race_id": self.race_id,
            "kind": self.KIND,
            "question": self.request.question,
            "asked_at": self.asked_at,
            "state": self.state,
            "whole_window": self.request.whole_window,
            **self._headline(),
        }

    def to_json(self) -> dict[str, Any]:
        """All of it; docs/race.md says what the fields are."""
        return {
            "format": self.FORMAT,
            "version": VERSION,
            "race_id": self.race_id,
            "kind": self.KIND,
            "question": self.request.question,
            "turn_id": self.request.turn_id,
            "whole_window": self.request.whole_window,
            "asked_at": self.asked_at,
            "state": self.state,
            "message": self.message,
            "progress": self._progress,
            "setting": self._setting,
            "text": self._text,
            **self._own_json(),
        }

    def _changed(self, state: RaceState, message: str, *names: str) -> dict[str, Any]:
        self.state, self.message = state, message
        return {"state": state, "message": message} | {name: getattr(self, f"_{name}") for name in names}

    @abstractmethod
    def _take_plan(self, event: RacePlanned) -> None:
        """Add to `_setting` and `_text` what only this kind has."""

    @abstractmethod
    def _take_own(self, event: Any) -> dict[str, Any]:
        """`take`, of an event that only this kind has."""

    @abstractmethod
    def _headline(self) -> dict[str, str]:
        """Headline and sentence of the summary."""

    @abstractmethod
    def _own_json(self) -> dict[str, Any]:
        """What only this kind has."""


def waiting_message(event: ModelLoading | DocumentReading | Queued) -> str:
    """What it waits for."""
    if isinstance(event, ModelLoading):
        return f"Waiting for the model: {event.message[:1].lower()}{event.message[1:]}"
    if isinstance(event, DocumentReading):
        share = "" if event.share is None else f" ({100 * event.share:.0f} %)"
        return f"Waiting for the text of {event.name}{share}"
    others = "1 other" if event.jobs_ahead == 1 else f"{event.jobs_ahead} others"
    return f"Waiting for {others} to finish"
