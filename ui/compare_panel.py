"""The comparison: one question, answered by dense attention and by Quest side by side.

Both start from one shared prefill and take turns by compute time, so the two columns stream at their true relative
speed. A comparison leaves the conversation as it is.
"""

import html
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from app.chat.answer import DocumentReading, ModelLoading, Queued
from app.chat.assistant import Assistant
from app.errors import explain
from app.race.race import RaceFinished, RacePrefill, RaceToken
from ui.chat_panel import ENGINE_QUEUE
from ui.notices import notice_line, shown_to_user, user_error, warn
from ui.page_script import WITH_CONVERSATION
from ui.raw_html import raw_html
from ui.settings_panel import SettingsPanel, options
from ui.tab_conversation import tab_conversation
from ui.wording import (
    byte_count,
    loading_line,
    percentage,
    prefill_line,
    queue_line,
    rate,
    reading_line,
    stretch_suffix,
)

_UPDATE_S = 0.08
_TITLES = {"dense": "Dense attention", "quest": "Quest"}
_SUBTITLES = {"dense": "reads the whole KV cache for every token", "quest": "reads the pages that matter"}


@dataclass(frozen=True)
class Column:
    """What one side of the comparison shows.

    Args:
        answer: its text so far.
        tokens_per_s, ms_per_token, kv_bytes_per_token: its figures; None while the first steps warm up.
        difference_char: first character in which the two answers differ; None while unknown or if they are equal.
        done: whether it has ended.
    """

    answer: str = ""
    tokens_per_s: float | None = None
    ms_per_token: float | None = None
    kv_bytes_per_token: float | None = None
    difference_char: int | None = None
    done: bool = False


class ComparePanel:
    """The comparison's question, columns and result.

    Args:
        assistant: what answers.
        settings_panel: gives the options; its choice of attention does not matter here.
    """

    def __init__(self, assistant: Assistant, settings_panel: SettingsPanel) -> None:
        self._assistant = assistant
        self._settings_panel = settings_panel
        with gr.Column(elem_id="compare-panel"):
            self._question = gr.Textbox(
                placeholder="One question, answered by both",
                label="Question for the comparison",
                show_label=False,
                container=False,
                max_lines=4,
                submit_btn="Compare",
                elem_id="compare-question",
            )
            notice_line("comparison")
            self._summary = raw_html(summary_note("Ask one question and watch dense attention and Quest answer it."))
            with gr.Row(elem_id="compare-columns", equal_height=True):
                self._dense = raw_html(column_markup("dense", Column(), 0), elem_classes="compare-column")
                self._quest = raw_html(column_markup("quest", Column(), 0), elem_classes="compare-column")

    def connect(self, conversation_id: gr.Textbox) -> None:
        """Attach the handlers.

        Args:
            conversation_id: the hidden field that holds the tab's conversation.
        """
        shown = [self._question, self._summary, self._dense, self._quest]
        plain: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        inputs = [conversation_id, self._question, *self._settings_panel.inputs]
        self._question.submit(self._compare, inputs, shown, js=WITH_CONVERSATION, **plain, **ENGINE_QUEUE)
        self._question.stop(self._stop, conversation_id, None, queue=False, **plain)

    def _compare(self, conversation_id: str, question: str, *option_values: Any) -> Iterator[list[Any]]:
        question = (question or "").strip()
        if not question:
            warn("Write a question first.", "comparison")
            yield [gr.skip()] * 4
            return
        with shown_to_user("comparison"):
            conversation = tab_conversation(self._assistant, conversation_id)
        yield [gr.update(submit_btn=False, stop_btn="Stop"), summary_note(queue_line(0)), *columns_markup({})]
        failure = None
        try:
            with closing(self._assistant.race(conversation, question, options(*option_values))) as events:
                for summary, columns in paced_race(events):
                    yield [gr.skip(), summary, *columns_markup(columns)]
        except Exception as error:
            # Whatever it is: the button must not stay.
            failure = explain(error, "The comparison")
        idle = gr.update(submit_btn="Compare", stop_btn=False)
        if failure is None:
            yield [idle, gr.skip(), gr.skip(), gr.skip()]
            return
        yield [idle, summary_note("The comparison could not be made."), gr.skip(), gr.skip()]
        raise user_error(str(failure), "comparison") from failure

    def _stop(self, conversation_id: str) -> None:
        with shown_to_user("comparison"):
            self._assistant.cancel(tab_conversation(self._assistant, conversation_id))


def paced_race(events: Iterator[Any]) -> Iterator[tuple[str, dict[str, Column]]]:
    """Yield (summary, columns by side) for the events of a race, at most every `_UPDATE_S`."""
    columns: dict[str, Column] = {}
    shown_at = 0.0
    for event in events:
        if isinstance(event, ModelLoading):
            yield summary_note(loading_line(event.message)), columns
        elif isinstance(event, Queued):
            yield summary_note(queue_line(event.jobs_ahead)), columns
        elif isinstance(event, DocumentReading):
            yield summary_note(reading_line(event.name, event.share), event.share or 0, 1), columns
        elif isinstance(event, RacePrefill):
            line = prefill_line(event.done_tokens, event.total_tokens, event.remaining_s, "once for both")
            yield summary_note(line + stretch_suffix(event), event.done_tokens, event.total_tokens), columns
        elif isinstance(event, RaceToken):
            columns[event.side] = Column(
                event.answer, event.tokens_per_s, event.ms_per_token, event.kv_bytes_per_token
            )
            if time.monotonic() - shown_at >= _UPDATE_S:
                shown_at = time.monotonic()
                yield running_summary(columns), columns
        elif isinstance(event, RaceFinished):
            for side, result in (("dense", event.dense), ("quest", event.quest)):
                columns[side] = replace(
                    columns.get(side, Column()),
                    answer=result.answer,
                    tokens_per_s=result.tokens_per_s,
                    ms_per_token=result.ms_per_token,
                    kv_bytes_per_token=result.kv_bytes_per_token,
                    difference_char=event.first_difference_char,
                    done=True,
                )
            yield final_summary(event), columns


def summary_note(line: str, done: float = 0, total: float = 0) -> str:
    """A plain line above the columns, with a progress bar if `total` is given."""
    bar = f'<progress value="{done}" max="{total}"></progress>' if total else ""
    return f'<div class="race-note" aria-live="polite">{html.escape(line)}{bar}</div>'


def running_summary(columns: dict[str, Column]) -> str:
    """The speed ratio so far; whether it tells anything is not known before the end."""
    dense, quest = columns.get("dense"), columns.get("quest")
    if not dense or not quest or not dense.tokens_per_s or not quest.tokens_per_s:
        return summary_note("Both have started; the first steps warm up and do not count")
    ratio = quest.tokens_per_s / dense.tokens_per_s
    return _result_markup(ratio, f"{ratio:.2f}&times;", "Speed of Quest over that of dense attention, so far", "")


def final_summary(event: RaceFinished) -> str:
    """Which side was faster, or why that cannot be told; the saved reading; where the answers part."""
    if event.first_difference is None:
        difference = "Both answers are the same, token for token."
    else:
        difference = f"The answers first differ at token {event.first_difference + 1:,}, marked in both."
    ratio = event.speed_ratio
    if event.fits_budget:
        verdict = "The text fits the token budget and both sides read all of it: there is no speed to compare"
        return _result_markup(ratio, "Same work", verdict, difference)
    saved = ""
    if event.quest.kv_bytes_per_token and event.dense.kv_bytes_per_token:
        share = event.quest.kv_bytes_per_token / event.dense.kv_bytes_per_token
        saved = f"Quest read {percentage(share)} of the KV cache that dense attention read. "
    if ratio is None or event.noise is None:
        verdict = "The answers have too few steps to compare the speed"
        return _result_markup(ratio, "Too short", verdict, saved + difference)
    if event.faster is None:
        verdict = f"No clear winner: Quest had {ratio:.2f} times the speed of dense attention, and chance could do that"
        return _result_markup(ratio, "Even", verdict, saved + difference)
    comparison, factor = ("faster", ratio) if event.faster == "quest" else ("slower", 1 / ratio)
    verdict = f"Quest is {factor:.2f} times {comparison} per token"
    return _result_markup(ratio, f"{factor:.2f}&times;", verdict, saved + difference)


def _result_markup(ratio: float | None, headline: str, verdict: str, note: str) -> str:
    measured = "" if ratio is None else f' data-ratio="{ratio:.3f}"'
    return (
        f'<div class="race-result"{measured}><span class="race-ratio">{headline}</span>'
        f'<span>{verdict}</span><span class="race-detail">{html.escape(note)}</span></div>'
    )


def columns_markup(columns: dict[str, Column]) -> list[str]:
    """Markup of the dense and the Quest column, with bars on one scale."""
    fastest = max((column.tokens_per_s or 0.0 for column in columns.values()), default=0.0)
    return [column_markup(side, columns.get(side, Column()), fastest) for side in ("dense", "quest")]


def column_markup(side: str, column: Column, fastest_tokens_per_s: float) -> str:
    """One side: its figures, a bar of its speed on the scale of the faster one, and its answer."""
    speed, step_ms, step_bytes = column.tokens_per_s, column.ms_per_token, column.kv_bytes_per_token
    share = speed / fastest_tokens_per_s if speed and fastest_tokens_per_s else 0.0
    figures = "".join(
        f"<div><dt>{label}</dt><dd>{value or '&ndash;'}</dd></div>"
        for label, value in (
            ("Speed", speed and rate(speed)),
            ("Per token", step_ms and f"{step_ms:.1f} ms"),
            ("KV read per token", step_bytes and byte_count(step_bytes)),
        )
    )
    return (
        f'<section class="race-side" data-side="{side}"><header><h3>{_TITLES[side]}</h3>'
        f"<span>{_SUBTITLES[side]}</span></header><dl>{figures}</dl>"
        f'<div class="race-bar"><span style="width:{100 * share:.1f}%"></span></div>'
        f'<div class="race-answer">{answer_markup(column)}</div></section>'
    )


def answer_markup(column: Column) -> str:
    """The answer as plain text; from the first difference on it is marked, its first word strongly."""
    at = column.difference_char
    if at is None or at >= len(column.answer):
        return html.escape(column.answer)
    word_end = next((i for i in range(at + 1, len(column.answer)) if column.answer[i].isspace()), len(column.answer))
    return (
        f"{html.escape(column.answer[:at])}<mark>{html.escape(column.answer[at:word_end])}</mark>"
        f'<span class="race-apart">{html.escape(column.answer[word_end:])}</span>'
    )
