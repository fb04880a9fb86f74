"""A sweep over budgets as it is kept, for its chart, its table and its JSON file. See docs/race.md for the format."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from app.chat.answers.answer import DocumentReading, ModelLoading, PrefillEvent, Queued
from app.chat.presets import find_preset
from app.race.kept_record import KeptRecord
from app.race.race import RacePlanned
from app.race.sweep import SweepAnswer, SweepFinished, SweepPoint
from app.race.verdict import percent

SweepEvent = (
    ModelLoading | DocumentReading | Queued | RacePlanned | PrefillEvent | SweepAnswer | SweepPoint | SweepFinished
)


@dataclass
class SweepRecord(KeptRecord):
    """One sweep."""

    KIND: ClassVar[str] = "sweep"
    FORMAT: ClassVar[str] = "quest-sweep"

    _answer: str = ""
    _points: list[dict[str, Any]] = field(default_factory=list)

    def _take_plan(self, event: RacePlanned) -> None:
        """A sweep has nothing of its own there."""

    def _take_own(self, event: SweepAnswer | SweepPoint | SweepFinished) -> dict[str, Any]:
        if isinstance(event, SweepAnswer):
            self._answer = event.answer
            return self._changed("running", f"Dense attention answers first: {event.tokens} tokens", "answer")
        if isinstance(event, SweepPoint):
            preset = find_preset("auto", event.token_budget)
            self._points.append(asdict(event) | {"preset": preset.title if preset else ""})
            done = len(self._points)
            return self._changed("running", f"{done} of {len(self.request.budgets)} budgets measured", "points")
        return self._changed("finished" if event.complete else "stopped", self.sentence)

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

    def _headline(self) -> dict[str, str]:
        return {
            "headline": f"{len(self._points)} budgets",
            "sentence": self.sentence if self.ended and self.state != "failed" else self.message,
        }

    def _own_json(self) -> dict[str, Any]:
        return {"budgets": list(self.request.budgets), "answer": self._answer, "points": list(self._points)}


def _speed(point: dict[str, Any]) -> str:
    ratio, noise = point["speed_ratio"], point["noise"]
    if ratio is None or noise is None or 1 / noise <= ratio <= noise:
        return "no speed that chance could not have given"
    return f"{ratio:.1f} times the speed of dense attention"
