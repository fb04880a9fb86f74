"""One answer, from the engine's work to the report; a scripted session stands for the engine's.

The model speaks in characters: its tokens are their code points.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from app.chat.answers.answer import AnswerOptions, PrefillEvent, TokenEvent
from app.chat.answers.answer_run import AnswerRun
from app.chat.answers.answer_work import StepText, Thinking, answer_work, read_step
from app.chat.answers.text_stream import TextStream
from app.chat.answers.thought_stream import ThoughtStream
from app.chat.prompt.document_tokens import TokenCount
from app.chat.prompt.plan import PromptPlan, PromptSpan
from app.chat.prompt.prompt_part import DocumentEnd
from quest_core.cache.prefixes import Prefix
from quest_core.config import QuestConfig, SamplingConfig
from quest_core.decode.read_trace import StepReads
from quest_core.engine import Cancellation
from quest_core.session_events import DecodeStep, PrefillProgress

PROMPT = list(range(1000, 1020))
CLOSING = "</think>"
NO_THOUGHT = Thinking(opened=False, max_tokens=6, closing_token_ids=())
THOUGHT = Thinking(opened=True, max_tokens=6, closing_token_ids=tuple(map(ord, CLOSING)))
LEVELS, READS = object(), object()


def decode(token_ids: Sequence[int], keep_control_tokens: bool = False) -> str:
    return "".join(map(chr, token_ids))


@pytest.fixture
def plan(text_document) -> PromptPlan:
    """Four tokens of instructions and sixteen of a document's page, which are kept."""
    document = text_document("a" * 16)
    spans = (PromptSpan(0, 4, "instructions"), PromptSpan(4, 20, "document", document, 0, "1"))
    kept = (DocumentEnd(20, (document.document_id,)),)
    return PromptPlan(PROMPT, spans, TokenCount(16), 16, "whole", (document,), kept_ends=kept)


class ScriptedSession:
    """Says one text after each prefill, and notes what it was asked for."""

    max_tokens = 1000

    def __init__(self, *texts: str, finish_reason: str | None = None) -> None:
        self._texts = list(texts)
        self._finish_reason = finish_reason
        self.prefilled: list[tuple[list[int], int, tuple[Prefix, ...]]] = []
        self.scored: list[int] = []
        self.limits: list[int] = []

    def prefill(self, token_ids, cancellation, room_tokens=0, prefixes=()) -> Iterator[PrefillProgress]:
        self.prefilled.append((list(token_ids), room_tokens, prefixes))
        yield PrefillProgress(0, len(token_ids), len(token_ids), 0.1)

    def score(self, token_ids, quest, cancellation) -> Iterator[None]:
        self.scored += token_ids
        yield

    def decode(self, quest, sampling, cancellation) -> Iterator[DecodeStep]:
        self.limits.append(sampling.max_new_tokens)
        text = self._texts.pop(0)
        for number, character in enumerate(text):
            if cancellation.requested:
                return
            last = number + 1 == len(text)
            yield step(number, ord(character), finish_reason=self._finish_reason if last else None)


def step(number: int, token_id: int, reads: StepReads | None = None, finish_reason=None, step_s=0.5) -> DecodeStep:
    bytes_read, bytes_dense = (25, 100) if number else (0, 0)
    return DecodeStep(number, token_id, step_s, 20 + number, bytes_read, bytes_dense, reads, finish_reason)


class Watchers:
    """Stand for what is looked up beside an answer: usual levels, and where its tokens attend."""

    def __init__(self) -> None:
        self.watched: list[tuple[int, list[int]]] = []

    def usual(self, session, plan, quest, cancellation) -> object:
        return LEVELS

    def watch(self, session, plan, context_tokens, own, cancellation) -> object:
        self.watched.append((context_tokens, own))
        return READS


@pytest.fixture
def watchers() -> Watchers:
    return Watchers()


def work_of(session, plan, watchers, thinking=NO_THOUGHT, max_new_tokens=4, stop=(), begun=None):
    """The work of an answer, and its text."""
    text = ThoughtStream(decode, stop, max_new_tokens, thinking.max_tokens, thinking.opened)
    if begun is not None:
        begun.push(text)
    sampling = SamplingConfig(max_new_tokens=max_new_tokens)
    work = answer_work(lambda: session, plan, QuestConfig(), sampling, text, thinking, watchers, watchers, begun)
    return work, text


def test_the_prompt_is_read_then_steps_follow_then_where_they_attend(plan, watchers):
    session = ScriptedSession("Yes.", finish_reason="length")
    work, _ = work_of(session, plan, watchers)
    progress, first, usual, *steps, reads = work(Cancellation())
    assert isinstance(progress, PrefillProgress) and usual is LEVELS and reads is READS
    assert [one.answer for one in (first, *steps)] == ["Y", "Ye", "Yes", "Yes."]
    assert [one.finish_reason for one in (first, *steps)] == [None, None, None, "length"]
    # What is worth keeping of the prompt is said, and room is made for the answer.
    document_id = plan.documents[0].document_id
    assert session.prefilled == [(PROMPT, 4, (Prefix(20, (document_id,)),))]
    assert watchers.watched == [(20, [ord(character) for character in "Yes."])]


def test_a_stop_string_ends_the_answer_and_is_no_part_of_it(plan, watchers):
    session = ScriptedSession("Yes##no", finish_reason="length")
    work, text = work_of(session, plan, watchers, max_new_tokens=9, stop=["##"])
    *_, last, reads = work(Cancellation())
    assert (last.answer, last.kept_tokens, last.finish_reason) == ("Yes", 3, "stop") and reads is READS
    assert watchers.watched == [(20, [ord(character) for character in "Yes"])]


def test_a_cancelled_answer_is_not_looked_at(plan, watchers):
    cancellation = Cancellation()
    work, _ = work_of(ScriptedSession("Yes."), plan, watchers)
    events = []
    for event in work(cancellation):
        events.append(event)
        if isinstance(event, StepText):
            cancellation.request()
    assert [type(event) for event in events] == [PrefillProgress, StepText, object]
    assert watchers.watched == []

    cancelled = Cancellation()
    cancelled.request()
    session = ScriptedSession("Yes.")
    assert len(list(work_of(session, plan, watchers)[0](cancelled))) == 1
    assert session.limits == []


def test_an_answer_goes_on_from_the_token_drawn_last(plan, watchers):
    token_ids = tuple(map(ord, "Ye"))
    begun = SimpleNamespace(token_ids=token_ids, push=lambda text: [text.push(token_id) for token_id in token_ids])
    session = ScriptedSession("s.", finish_reason="length")
    work, _ = work_of(session, plan, watchers, begun=begun)
    *_, last, reads = work(Cancellation())
    assert last.answer == "Yes." and reads is READS
    # All but the last are read as a prompt; the last is fed as a step would feed it.
    assert session.prefilled[0][:2] == ([*PROMPT, ord("Y")], 4 + 1)
    assert session.scored == [ord("e")]
    assert watchers.watched == [(20, [ord(character) for character in "Yes."])]


def test_a_thought_at_its_limit_is_closed_for_the_model(plan, watchers):
    session = ScriptedSession("Hmmmm, I think", "So.")
    work, _ = work_of(session, plan, watchers, THOUGHT, max_new_tokens=3)
    steps = [event for event in work(Cancellation()) if isinstance(event, StepText)]
    assert [one.step.step for one in steps] == list(range(9))  # six of the thought, three of the answer
    assert [one.inserted_token_ids for one in steps] == [()] * 6 + [THOUGHT.closing_token_ids] + [()] * 2
    assert (steps[-1].thought, steps[-1].answer, steps[-1].finish_reason) == ("Hmmmm,", "So.", "length")
    # The answer has its own room, which no thought takes.
    thought = [*map(ord, "Hmmmm,"), *THOUGHT.closing_token_ids]
    assert session.prefilled[0][1] == 3 + THOUGHT.room_tokens == 3 + 6 + len(CLOSING)
    assert session.prefilled[1][:2] == ([*PROMPT, *thought], 3)
    assert steps[-1].thinking_tokens == len(thought)
    assert watchers.watched == [(20 + len(thought), [ord(character) for character in "So."])]


def test_a_stop_token_has_no_text():
    text = TextStream(decode, ["##"])
    read_step(step(0, ord("a")), text)
    assert read_step(step(1, ord("#")), text).text_delta == ""  # it may begin a stop string
    last = read_step(step(2, ord("$"), finish_reason="stop"), text)
    assert (last.text_delta, last.answer, last.kept_tokens, last.finish_reason) == ("#", "a#", 2, "stop")


@pytest.fixture
def published() -> list[dict]:
    return []


@pytest.fixture
def run(plan, published) -> AnswerRun:
    engine = SimpleNamespace(
        page_size=4,
        model_name="Tiny",
        device_name="the CPU",
        context_tokens=1024,
        model_config=SimpleNamespace(num_layers=1, num_kv_heads=2),
    )
    return AnswerRun(engine, plan, AnswerOptions(token_budget=12), published.append)


def take_text(run: AnswerRun, text: str, finish_reason: str | None = None, reads=None) -> list[TokenEvent]:
    """Steps of a text, half a second each but for the first, which the prefill has paid for."""
    stream = TextStream(decode)
    return [
        run.take(
            read_step(
                step(number, ord(one), reads if number else None, finish_reason if number + 1 == len(text) else None),
                stream,
            )
        )
        for number, one in enumerate(text)
    ]


def test_the_report_sums_up_what_was_taken(run, published, plan):
    assert run.queued(2).jobs_ahead == 2
    progress = run.take(PrefillProgress(5, 20, 20, 0.25, restored_tokens=4, restored_bytes=64))
    assert isinstance(progress, PrefillEvent)
    page_reads = np.array([[2, 2, 0, 1, 2, 2]], dtype=np.uint8)
    *_, last = take_text(run, "Yes!", "stop", StepReads(page_reads, 2, (0, 5), 0, 25, 0.1))
    assert (last.answer, last.mean_tokens_per_s) == ("Yes", 2.0)
    report = run.finish()
    assert (report.answer, report.finish_reason, report.model) == ("Yes", "stop", "Tiny")
    assert (report.prompt_tokens, report.reused_tokens, report.restored_tokens, report.prefill_s) == (20, 5, 4, 0.25)
    # The stop token is none of the answer's; the first token took no step of its own.
    assert (report.decode_tokens, report.decode_tokens_per_s) == (3, 2.0)
    assert report.time_to_first_token_s > 0.0
    assert [(page.page_label, page.share) for page in report.pages_read] == [("1", 1.0)]
    assert [one["type"] for one in published] == ["queued", "prefill", *["step"] * 4, "finished"]
    told = published[-2]
    assert (told["read_share"], told["missed_share"], told["pages"], told["kv_heads"]) == (0.25, 0.1, 6, 2)
    assert published[2]["read_share"] is published[2]["page_reads"] is None
    assert (published[-1]["decode_tokens"], published[-1]["steps"]) == (3, 4)


def test_an_answer_without_an_end_was_cancelled_or_has_failed(run, published):
    take_text(run, "Ye")
    assert run.finish().finish_reason == published[-1]["finish_reason"] == "cancelled"
    run.fail(ValueError("broken"))
    assert (published[-1]["type"], published[-1]["finish_reason"]) == ("finished", "failed")


def test_a_thought_is_told_apart_from_the_answer(run):
    text = ThoughtStream(decode, (), 10, 100, opened=True)
    thought = f"Hm{CLOSING}"
    for number, one in enumerate(f"{thought}Yes"):
        part = read_step(step(number, ord(one)), text)
        run.take(replace(part, thought=text.thought, thinking_tokens=text.thinking_tokens))
    assert run.answer_token_ids == tuple(map(ord, "Yes"))
    report = run.finish()
    assert (report.answer, report.thinking, report.thinking_tokens) == ("Yes", "Hm", len(thought))
    assert report.thinking_token_ids == tuple(map(ord, thought)) and report.decode_tokens == 3
