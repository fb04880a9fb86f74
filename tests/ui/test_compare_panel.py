"""The comparison's columns, ratio and first difference."""

from __future__ import annotations

from dataclasses import replace

import gradio as gr
import pytest

from app.errors import UserFacingError
from app.race.race import RaceFinished, RacePrefill, RaceSide
from ui.compare_panel import Column, ComparePanel, answer_markup, final_summary, paced_race, running_summary
from ui.settings_panel import SettingsPanel

OPTIONS = ("quest", 1024, 256, 0.0, 1.0, "Be brief.")
DENSE = RaceSide("High above", 5, 25.0, 40.0, 3_145_728.0, "stop")
QUEST = RaceSide("High over", 5, 50.0, 20.0, 1_048_576.0, "stop")
FINISHED = RaceFinished(DENSE, QUEST, 2.0, 2, 1, 5, 1.2)


@pytest.fixture
def panel(assistant, settings) -> ComparePanel:
    with gr.Blocks(analytics_enabled=False):
        return ComparePanel(assistant, SettingsPanel(settings))


def test_a_comparison_ends_with_figures_ratio_and_difference(panel, assistant):
    conversation = assistant.new_conversation()
    updates = list(panel._compare(conversation.conversation_id, "Where?", *OPTIONS))
    assert (updates[0][0]["submit_btn"], updates[0][0]["stop_btn"]) == (False, "Stop")
    assert (updates[-1][0]["submit_btn"], updates[-1][0]["stop_btn"]) == ("Compare", False)
    _, summary, dense, quest = updates[-2]
    assert 'data-ratio="2.000"' in summary and "token 2" in summary and "33 %" in summary
    assert "25.0 tokens/s" in dense and "40.0 ms" in dense and "3.0 MiB" in dense
    assert "50.0 tokens/s" in quest and "20.0 ms" in quest and "1.0 MiB" in quest
    assert "<mark>above</mark>" in dense and "<mark>over</mark>" in quest
    assert conversation.turns == []


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        (UserFacingError("The window is full."), "window is full"),
        (RuntimeError("device lost"), "error in Quest Chat .RuntimeError: device lost.*Try again"),
    ],
)
def test_a_failure_leaves_the_question_where_it_is(panel, assistant, failure, sentence):
    conversation = assistant.new_conversation()
    assistant.failure = failure
    updates = []
    with pytest.raises(gr.Error, match=sentence):
        for update in panel._compare(conversation.conversation_id, "Where?", *OPTIONS):
            updates.append(update)
    assert all("value" not in update[0] for update in updates if isinstance(update[0], dict))
    assert updates[-1][0]["submit_btn"] == "Compare"


def test_the_shared_prefill_is_shown_once_for_both():
    (summary, columns), *_ = paced_race(iter([RacePrefill(0, 512, 6310, 0.5, 4.0)]))
    assert "512 of 6,310 tokens, 4 s left" in summary
    assert columns == {}


def test_equal_answers_and_too_short_ones_are_told():
    same = replace(FINISHED, quest=DENSE, first_difference=None, first_difference_char=None)
    assert "the same, token for token" in final_summary(same)
    assert "Too short" in final_summary(replace(FINISHED, speed_ratio=None))


def test_a_slower_quest_is_called_slower():
    summary = final_summary(replace(FINISHED, speed_ratio=0.8))
    assert "1.25 times slower" in summary
    assert 'data-ratio="0.800"' in summary


def test_no_winner_is_named_inside_the_noise():
    for ratio in (1.18, 0.85):
        summary = final_summary(replace(FINISHED, speed_ratio=ratio))
        assert "faster" not in summary and "slower" not in summary
        assert "No clear winner" in summary and f"{ratio:.2f} times" in summary
    assert "Too short" in final_summary(replace(FINISHED, noise=None))


def test_a_text_that_fits_the_budget_has_no_winner():
    summary = final_summary(replace(FINISHED, fits_budget=True))
    assert "fits the token budget" in summary and "both sides read all" in summary
    assert not any(word in summary for word in ("faster", "2.00 times", "2.00&times;"))


def test_no_winner_is_named_while_it_runs():
    columns = {"dense": Column("High", 25.0), "quest": Column("High", 50.0)}
    assert "2.00" in running_summary(columns)
    assert "faster" not in running_summary(columns)


@pytest.mark.parametrize(
    ("answer", "difference_char", "marked"),
    [
        ("High above the city", 5, 'High <mark>above</mark><span class="race-apart"> the city</span>'),
        ("High above", None, "High above"),
        ("High", 4, "High"),
        ("<b>a</b>", 3, '&lt;b&gt;<mark>a&lt;/b&gt;</mark><span class="race-apart"></span>'),
    ],
)
def test_where_answers_part_is_marked(answer, difference_char, marked):
    assert answer_markup(Column(answer, difference_char=difference_char)) == marked
