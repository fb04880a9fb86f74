"""A sweep over budgets as it is kept, for its chart, its table and its JSON file. See docs/race.md for the format."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from app.chat.answers.answer import DocumentReading, ModelLoading, PrefillEvent, Queued
from app.race.race import RacePlanned
from app.race.race_record import VERSION, RaceRequest, RaceState, waiting_message
from app.race.sweep import SweepAnswer, SweepFinished, SweepPoint
from app.race.verdict import percent

FORMAT = "quest-sweep"

SweepEvent = (
    ModelLoading | DocumentReading | Queued | RacePlanned | PrefillEvent | SweepAnswer | SweepPoint | SweepFinished
)


@dataclass
class SweepRecord:
    """One sweep; as `app.race.race_record.RaceRecord`."""

    race_id: str
    request: RaceRequest
    asked_at: float = field(default_factory=time.time)
    state: RaceState = "waiting"
    message: str = ""
    _progress: dict[str, Any] | None = None
    _setting: dict[str, Any] | None = None
    _text: dict[str, Any] | None = None
    _answer: str = ""
    _points: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return self.state in ("finished", "stopped", "failed")

    def take(self, event: SweepEvent) -> dict[str, Any]:
        """Note an event; returns what it changes, as in `to_json`."""
        if isinstance(event, RacePlanned):
            plan = event.plan
            self._setting = {"model": event.model, "device": event.device, "page_size": event.page_size}
            self._text = {
                "prompt_tokens": len(plan.token_ids),
                "text_tokens": plan.tokens_in_context,
                "document_tokens": plan.document_tokens.tokens,
                "mode": plan.mode,
            }
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
        if isinstance(event, SweepAnswer):
            self._answer = event.answer
            return self._changed("running", f"Dense attention answers first: {event.tokens} tokens", "answer")
        if isinstance(event, SweepPoint):
            self._points.append(asdict(event))
            done = len(self._points)
            return self._changed("running", f"{done} of {len(self.request.budgets)} budgets measured", "points")
        if isinstance(event, SweepFinished):
            return self._changed("finished" if event.complete else "stopped", self.sentence)
        return self._changed("waiting", waiting_message(event))

    def fail(self, sentence: str) -> dict[str, Any]:
        """Note that it could not be made."""
        return self._changed("failed", sentence)

    def _changed(self, state: RaceState, message: str, *names: str) -> dict[str, Any]:
        self.state, self.message = state, message
        return {"state": state, "message": message} | {name: getattr(self, f"_{name}") for name in names}

    @property
    def sentence(self) -> str:
        """The points in a sentence: the fastest budget that chose nearly every token as dense attention did."""
        measured = [point for point in self._points if point["steps"] and not point["fits_budget"]]
        if not measured:
            if self._points:
                return "The text fits every budget that was tried, so there was nothing to leave out."
            return "Stopped before the first budget was measured."
        good = [point for point in measured if point["agreed"] >= 0.95 * point["steps"]] or [
            max(measured, key=lambda point: point["agreed"] / point["steps"])
        ]
        best = max(good, key=lambda point: point["speed_ratio"] or 0.0)
        return (
            f"Looking at {best['token_budget']:,} tokens gave {_speed(best)}, and dense attention's choice for "
            f"{best['agreed']} of {best['steps']} tokens ({percent(best['agreed'] / best['steps'])})."
        )

    def summary(self) -> dict[str, Any]:
        """A line of the list of races."""
        return {
            "race_id": self.race_id,
            "kind": "sweep",
            "question": self.request.question,
            "asked_at": self.asked_at,
            "state": self.state,
            "whole_window": self.request.whole_window,
            "headline": f"{len(self._points)} budgets",
            "sentence": self.sentence if self.ended and self.state != "failed" else self.message,
        }

    def to_json(self) -> dict[str, Any]:
        """All of it; docs/race.md says what the fields are."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "race_id": self.race_id,
            "kind": "sweep",
            "question": self.request.question,
            "turn_id": self.request.turn_id,
            "whole_window": self.request.whole_window,
            "budgets": list(self.request.budgets),
            "asked_at": self.asked_at,
            "state": self.state,
            "message": self.message,
            "progress": self._progress,
            "setting": self._setting,
            "text": self._text,
            "answer": self._answer,
            "points": list(self._points),
        }


def _speed(point: dict[str, Any]) -> str:
    ratio, noise = point["speed_ratio"], point["noise"]
    if ratio is None or noise is None or 1 / noise <= ratio <= noise:
        return "no speed that chance could not have given"
    return f"{ratio:.1f} times the speed of dense attention"
