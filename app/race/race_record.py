"""A race as it is kept: everything that its film, a replay and its JSON file need. See docs/race.md for the format."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from app.race.kept_record import KeptRecord
from app.race.page_lights import PageLights
from app.race.race import RaceFinished, RacePlanned, RaceToken, Side
from app.race.verdict import verdict


@dataclass
class RaceRecord(KeptRecord):
    """One race."""

    KIND: ClassVar[str] = "race"
    FORMAT: ClassVar[str] = "quest-race"

    _tokens: dict[Side, list[dict[str, Any]]] = field(default_factory=lambda: {"dense": [], "quest": []})
    _result: dict[str, Any] | None = None
    _lights: PageLights | None = None

    def _take_plan(self, event: RacePlanned) -> None:
        options = self.request.options
        self._lights = PageLights(event.plan, event.page_size)
        self._setting |= {
            "token_budget": options.token_budget,
            "temperature": options.temperature,
            "max_new_tokens": options.max_new_tokens,
        }
        self._text |= {"pages": [asdict(page) for page in self._lights.pages]}

    def _take_own(self, event: RaceToken | RaceFinished) -> dict[str, Any]:
        return self._take_token(event) if isinstance(event, RaceToken) else self._take_end(event)

    def _take_token(self, event: RaceToken) -> dict[str, Any]:
        self.state, self.message = "running", ""
        looked_at = None
        drafts = event.side == "quest" and self.request.attention == "exact"
        if event.step and event.side == "quest" and not drafts and self._lights is not None:
            pages = len(self._lights.pages)
            # Percents fit a byte, and long texts have many pages.
            looked_at = bytes([100] * pages if event.reads is None else self._lights.percent_read(event.reads))
        token = {
            "text": event.text_delta,
            "at_s": round(event.at_s, 6),
            "step_s": round(event.step_s, 6),
            "looked_at": looked_at,
        }
        if drafts:
            token |= {"drafted": event.drafted, "accepted": event.accepted}
        tokens = self._tokens[event.side]
        tokens.append(token)
        return {"side": event.side, "number": len(tokens) - 1, "token": _told(token)}

    def _take_end(self, event: RaceFinished) -> dict[str, Any]:
        told = verdict(event, self.request.options.token_budget)
        for side, result in (("dense", event.dense), ("quest", event.quest)):
            tokens = self._tokens[side]
            if tokens:
                # What was held back for a stop string that never came, or was shown too early.
                before = "".join(token["text"] for token in tokens[:-1])
                if result.answer.startswith(before):
                    tokens[-1]["text"] = result.answer[len(before) :]
        self._result = {
            "headline": told.headline,
            "sentence": told.sentence,
            "winner": told.winner,
            "speed_ratio": event.speed_ratio,
            "noise": event.noise,
            "lead_s": event.lead_s,
            "fits_budget": event.fits_budget,
            "warm_up_steps": event.warm_up_steps,
            "first_difference": event.first_difference,
            "first_difference_char": event.first_difference_char,
            "dense": asdict(event.dense),
            "quest": asdict(event.quest),
        }
        return self._changed("stopped" if event.stopped else "finished", "", "result") | {
            "last_texts": {side: tokens[-1]["text"] for side, tokens in self._tokens.items() if tokens}
        }

    def _headline(self) -> dict[str, str]:
        return {
            "headline": self._result["headline"] if self._result else "",
            "sentence": self._result["sentence"] if self._result else self.message,
        }

    def _own_json(self) -> dict[str, Any]:
        return {
            "attention": self.request.attention,
            "tokens": {side: [_told(token) for token in tokens] for side, tokens in self._tokens.items()},
            "result": self._result,
        }


def _told(token: dict[str, Any]) -> dict[str, Any]:
    """A token as JSON has it."""
    looked_at = token["looked_at"]
    return {**token, "looked_at": None if looked_at is None else list(looked_at)}
