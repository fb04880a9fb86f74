"""A race as it is kept: everything that its film, a replay and its JSON file need. See docs/race.md for the format.

Takes the events of a race one by one and tells what each adds. Knows nothing of threads or of who watches.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from app.chat.answers.answer import AnswerOptions, DocumentReading, ModelLoading, PrefillEvent, Queued
from app.race.page_lights import PageLights
from app.race.race import RaceEvent, RaceFinished, RacePlanned, RaceToken, Side
from app.race.verdict import verdict

FORMAT, VERSION = "quest-race", 1

RaceState = Literal["waiting", "reading", "running", "finished", "stopped", "failed"]


@dataclass(frozen=True)
class RaceRequest:
    """What is raced, or swept.

    Args:
        question: as asked.
        options: how both answer; the budget is Quest's.
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


@dataclass
class RaceRecord:
    """One race.

    Args:
        race_id: names it.
        request: what was asked.
        asked_at: seconds since 1970.
        state, message: how far it is, and a sentence about that; "" where there is nothing to say.
    """

    race_id: str
    request: RaceRequest
    asked_at: float = field(default_factory=time.time)
    state: RaceState = "waiting"
    message: str = ""
    _progress: dict[str, Any] | None = None
    _setting: dict[str, Any] | None = None
    _text: dict[str, Any] | None = None
    _tokens: dict[Side, list[dict[str, Any]]] = field(default_factory=lambda: {"dense": [], "quest": []})
    _result: dict[str, Any] | None = None
    _lights: PageLights | None = None

    @property
    def ended(self) -> bool:
        return self.state in ("finished", "stopped", "failed")

    def take(self, event: RaceEvent) -> dict[str, Any]:
        """Note an event.

        Returns:
            What it changes, as in `to_json`; of a token, {"side", "number", "token"}.
        """
        if isinstance(event, RaceToken):
            return self._take_token(event)
        if isinstance(event, RaceFinished):
            return self._take_end(event)
        if isinstance(event, RacePlanned):
            return self._take_plan(event)
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
        return self._changed("waiting", waiting_message(event))

    def fail(self, sentence: str) -> dict[str, Any]:
        """Note that it could not be made, or was stopped before anything was read."""
        return self._changed("failed", sentence)

    def _changed(self, state: RaceState, message: str, *names: str) -> dict[str, Any]:
        self.state, self.message = state, message
        return {"state": state, "message": message} | {name: getattr(self, f"_{name}") for name in names}

    def _take_plan(self, event: RacePlanned) -> dict[str, Any]:
        plan, options = event.plan, self.request.options
        self._lights = PageLights(plan, event.page_size)
        self._setting = {
            "model": event.model,
            "device": event.device,
            "token_budget": options.token_budget,
            "page_size": event.page_size,
            "temperature": options.temperature,
            "max_new_tokens": options.max_new_tokens,
        }
        self._text = {
            "prompt_tokens": len(plan.token_ids),
            "text_tokens": plan.tokens_in_context,
            "document_tokens": plan.document_tokens.tokens,
            "mode": plan.mode,
            "pages": [asdict(page) for page in self._lights.pages],
        }
        return self._changed("reading", "", "setting", "text")

    def _take_token(self, event: RaceToken) -> dict[str, Any]:
        self.state, self.message = "running", ""
        looked_at = None
        if event.step and event.side == "quest" and self._lights is not None:
            pages = len(self._lights.pages)
            # Percents fit a byte, and long texts have many pages.
            looked_at = bytes([100] * pages if event.reads is None else self._lights.percent_read(event.reads))
        token = {
            "text": event.text_delta,
            "at_s": round(event.at_s, 6),
            "step_s": round(event.step_s, 6),
            "looked_at": looked_at,
        }
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

    def summary(self) -> dict[str, Any]:
        """A line of the list of races."""
        return {
            "race_id": self.race_id,
            "kind": "race",
            "question": self.request.question,
            "asked_at": self.asked_at,
            "state": self.state,
            "whole_window": self.request.whole_window,
            "headline": self._result["headline"] if self._result else "",
            "sentence": self._result["sentence"] if self._result else self.message,
        }

    def to_json(self) -> dict[str, Any]:
        """All of it; docs/race.md says what the fields are."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "race_id": self.race_id,
            "kind": "race",
            "question": self.request.question,
            "turn_id": self.request.turn_id,
            "whole_window": self.request.whole_window,
            "asked_at": self.asked_at,
            "state": self.state,
            "message": self.message,
            "progress": self._progress,
            "setting": self._setting,
            "text": self._text,
            "tokens": {side: [_told(token) for token in tokens] for side, tokens in self._tokens.items()},
            "result": self._result,
        }


def _told(token: dict[str, Any]) -> dict[str, Any]:
    """A token as JSON has it."""
    looked_at = token["looked_at"]
    return {**token, "looked_at": None if looked_at is None else list(looked_at)}


def waiting_message(event: ModelLoading | DocumentReading | Queued) -> str:
    """What it waits for."""
    if isinstance(event, ModelLoading):
        return f"Waiting for the model: {event.message[:1].lower()}{event.message[1:]}"
    if isinstance(event, DocumentReading):
        share = "" if event.share is None else f" ({100 * event.share:.0f} %)"
        return f"Waiting for the text of {event.name}{share}"
    others = "1 other" if event.jobs_ahead == 1 else f"{event.jobs_ahead} others"
    return f"Waiting for {others} to finish"
