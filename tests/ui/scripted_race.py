"""Races of the scripted assistant: two answers of a few words that part, over two document pages, and three budgets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.chat.answers.answer import PrefillEvent
from app.chat.conversations.conversation import Conversation
from app.chat.prompt.document_tokens import TokenCount
from app.chat.prompt.plan import PromptPlan
from app.chat.prompt.prompt_part import PromptSpan
from app.errors import UserFacingError
from app.library import Document, DocumentPage
from app.race.kept_record import RaceRequest
from app.race.race import RaceFinished, RacePlanned, RaceSide, RaceToken
from app.race.races import Races
from app.race.sweep import SweepAnswer, SweepFinished, SweepPoint
from quest_core.decode.read_trace import StepReads
from quest_core.session_events import PrefillProgress

if TYPE_CHECKING:
    from tests.ui.scripted_assistant import ScriptedAssistant

PAGE_SIZE, LAYERS, KV_HEADS, PAGES = 4, 2, 1, 10
WORDS = {"dense": ("High", " above", " the", " <b>city</b>"), "quest": ("High", " above", " a", " <i>town</i>")}
# Of the one round of an exact race: drafted and accepted.
EXACT_DRAFTS = (7, 1)
STEP_S = {"dense": 0.2, "quest": 0.1}


def scripted_races(assistant: ScriptedAssistant) -> Races:
    """The real keeper of races over scripted events."""

    def occupy(conversation: Conversation) -> Conversation:
        if not conversation.busy.acquire(blocking=False):
            raise UserFacingError("This conversation is still answering. Stop that, or wait for its end.")
        conversation.cancelled.clear()
        return conversation

    return Races(
        lambda conversation, request: _events(assistant, conversation, request),
        occupy,
        lambda conversation: conversation.busy.release(),
        assistant.cancel,
        assistant.telemetry.tell,
    )


def _events(assistant: ScriptedAssistant, conversation: Conversation, request: RaceRequest) -> Iterator[Any]:
    assistant.asked.append((request.question, request.options))
    if assistant.failure is not None:
        raise assistant.failure
    yield RacePlanned(_plan(), "tiny-model", "CPU", PAGE_SIZE)
    yield PrefillEvent(PrefillProgress(32, 40, 40, 0.1), 0.0)
    if request.budgets:
        yield SweepAnswer(2, "High above")
        for index, budget in enumerate(request.budgets):
            yield SweepPoint(budget, 32, 28 + index, 2.0 - 0.2 * index, 1.1, 25.0, 50.0, 0.1, False)
        yield SweepFinished(True)
        return
    reads = StepReads(np.zeros((LAYERS, PAGES), dtype=np.uint8), KV_HEADS, (), 0, 0)
    reads.page_reads[:, 0] = 1
    said = {"dense": "", "quest": ""}
    for number in range(4):
        for side, text in ((side, WORDS[side][number]) for side in ("quest", "dense")):
            said[side] += text
            own = reads if side == "quest" and number and request.attention == "quest" else None
            drafts = EXACT_DRAFTS if side == "quest" and number == 1 and request.attention == "exact" else (0, 0)
            at_s = number * STEP_S[side]
            yield RaceToken(side, text, said[side], number, STEP_S[side], None, None, None, at_s, own, *drafts)
        while number == 0 and not assistant.pause.wait(0.02) and not conversation.cancelled.is_set():
            pass
        if conversation.cancelled.is_set():
            break
    reason = "cancelled" if conversation.cancelled.is_set() else "stop"
    sides = [
        RaceSide(
            said[side],
            number + 1,
            1 / STEP_S[side],
            1000 * STEP_S[side],
            1e6,
            reason,
            number + 1,
            number * STEP_S[side],
        )
        for side in ("dense", "quest")
    ]
    if request.attention == "exact":
        quest = replace(sides[1], looked_share=1.0, drafted_tokens=EXACT_DRAFTS[0], accepted_tokens=EXACT_DRAFTS[1])
    else:
        quest = replace(sides[1], looked_share=0.1)
    yield RaceFinished(sides[0], quest, 2.0, 2, 2, 11, 1.1, False, number * 0.1, request.attention)


def _plan() -> PromptPlan:
    pages = (DocumentPage(0, "1", "High above the city"), DocumentPage(1, "2", "on a tall column"))
    document = Document("0" * 32, "<book>.txt", Path("book.txt"), pages)
    spans = (
        PromptSpan(0, 20, "document", document, 0, "1", np.zeros((20, 2), dtype=np.int32)),
        PromptSpan(20, 36, "document", document, 1, "2", np.zeros((16, 2), dtype=np.int32)),
        PromptSpan(36, 40, "conversation"),
    )
    return PromptPlan(list(range(40)), spans, TokenCount(90), 36, "passages", (document,))


OUTLOOK = {
    "ready": True,
    "mode": "passages",
    "document_tokens": 90_000,
    "text_tokens": 4900,
    "window_tokens": 15_900,
    "reading_s": 75.0,
    "race_s": 20.0,
    "exact_race_s": 18.0,
    "sweep_s": 5.0,
    "sweep_s_per_budget": 4.0,
    "attention": "quest",
    "token_budget": 1024,
    "max_new_tokens": 256,
}
