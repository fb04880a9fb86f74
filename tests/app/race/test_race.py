"""The race is fair by step time, and its figures are those of the steps after warm-up."""

from __future__ import annotations

import functools
import itertools
import math

import pytest

from app.chat.answers.text_stream import TextStream
from app.race.race import RaceFinished, RaceToken, run_race
from app.race.turns import LEAST_TURNS, WARM_UP_STEPS, Turn, ratio_noise
from quest_core.session_events import DecodeStep


def steps_of(step_s, text, kv_bytes=10, end="stop", context_tokens=20):
    """A fake decode of one letter a step, after a prompt; the first token costs nothing."""
    for number, letter in enumerate(text):
        last = number == len(text) - 1 and end == "length"
        spent_s = step_s[number] if isinstance(step_s, list) else step_s
        context = context_tokens + number
        reason = end if last else None
        yield DecodeStep(number, ord(letter), spent_s if number else 0.0, context, kv_bytes, 40, None, reason)
    if end == "stop":
        spent_s = step_s if not isinstance(step_s, list) else 1.0
        yield DecodeStep(len(text), 0, spent_s, context_tokens, kv_bytes, 40, None, "stop")


def run(dense, quest, stop=(), token_budget=2):
    """The race's tokens and its end; the fake contexts have as many tokens as `steps_of` says."""
    events = list(run_race(dense, quest, lambda: TextStream(lambda ids: "".join(map(chr, ids)), stop), token_budget))
    assert isinstance(events[-1], RaceFinished) and all(isinstance(event, RaceToken) for event in events[:-1])
    return events[:-1], events[-1]


def test_the_side_with_less_step_time_goes_next():
    tokens, _ = run(steps_of(3.0, "a" * 12), steps_of(1.0, "b" * 12))
    used_s = {"dense": 0.0, "quest": 0.0}
    done = set()
    for token in tokens:
        other = "quest" if token.side == "dense" else "dense"
        assert other in done or used_s[token.side] <= used_s[other]
        used_s[token.side] += token.step_s
        if token.step == 12:
            done.add(token.side)
    by_quest = list(itertools.takewhile(lambda token: token.side == "quest" or token.step < 3, tokens))
    assert max(token.step for token in by_quest if token.side == "quest") >= 6


def test_figures_leave_out_the_first_token_and_the_warm_up():
    warm_up = [9.0] * (WARM_UP_STEPS + 1)
    _, finished = run(
        steps_of([*warm_up, 2.0, 4.0], "same!", kv_bytes=40, end="length"),
        steps_of([*warm_up, 1.0, 1.0], "same!", kv_bytes=8, end="length"),
    )
    assert finished.speed_ratio == pytest.approx(3.0)
    assert finished.dense.ms_per_token == pytest.approx(3000.0)
    assert finished.quest.tokens_per_s == pytest.approx(1.0)
    assert (finished.dense.kv_bytes_per_token, finished.quest.kv_bytes_per_token) == (40, 8)
    assert finished.warm_up_steps == WARM_UP_STEPS
    assert (finished.first_difference, finished.first_difference_char) == (None, None)


def test_the_ratio_counts_the_steps_that_both_made():
    warm_up = [1.0] * (WARM_UP_STEPS + 1)
    text = "abcdefgh"[: WARM_UP_STEPS + 3]
    _, finished = run(
        steps_of([*warm_up, 2.0, 2.0], text, end="length"),
        steps_of([*warm_up, 1.0, 1.0, 9.0, 9.0], text + "yz", end="length"),
    )
    assert finished.speed_ratio == pytest.approx(2.0)


def test_no_ratio_without_steps_after_the_warm_up():
    _, finished = run(steps_of(1.0, "ab"), steps_of(1.0, "a" * 20))
    assert finished.speed_ratio is None and finished.dense.ms_per_token is None


def test_where_the_answers_part():
    tokens, finished = run(steps_of(1.0, "the heart"), steps_of(1.0, "the hat"))
    assert (finished.first_difference, finished.first_difference_char) == (5, 5)
    assert (finished.dense.answer, finished.quest.answer) == ("the heart", "the hat")
    assert (finished.dense.finish_reason, finished.dense.decode_tokens) == ("stop", 9)
    assert "".join(token.text_delta for token in tokens if token.side == "quest") == "the hat"


def test_an_answer_that_goes_on_differs_where_the_other_ends():
    _, finished = run(steps_of(1.0, "ab"), steps_of(1.0, "abcd"))
    assert finished.first_difference == 2


def test_a_stop_string_ends_its_side_only():
    _, finished = run(steps_of(1.0, "one. two"), steps_of(1.0, "one, two"), stop=["."])
    assert (finished.dense.answer, finished.dense.finish_reason) == ("one", "stop")
    assert finished.quest.answer == "one, two"


def test_a_cancelled_race_tells_what_there_is():
    _, finished = run(steps_of(1.0, "abc", end=None), steps_of(1.0, "abcd", end=None))
    assert (finished.dense.finish_reason, finished.quest.finish_reason) == ("cancelled", "cancelled")
    assert finished.quest.answer == "abcd"


def alternating(first_s, second_s, steps=40):
    return [1.0] * (WARM_UP_STEPS + 1) + [first_s, second_s] * (steps // 2)


def race_of(dense_step_s, quest_step_s, **options):
    text = "x" * len(dense_step_s)
    return run(steps_of(dense_step_s, text, end="length"), steps_of(quest_step_s, text, end="length"), **options)[1]


def test_a_difference_beyond_the_spread_of_the_steps_has_a_winner():
    assert race_of(alternating(1.9, 2.1), alternating(0.9, 1.1)).faster == "quest"
    assert race_of(alternating(0.9, 1.1), alternating(1.9, 2.1)).faster == "dense"


def test_a_difference_inside_the_spread_of_the_steps_has_none():
    finished = race_of(alternating(0.6, 1.76), alternating(0.5, 1.5))
    assert finished.speed_ratio == pytest.approx(1.18)
    assert finished.faster is None


def test_few_steps_have_no_winner():
    few = [1.0] * (WARM_UP_STEPS + LEAST_TURNS)
    finished = race_of([2 * step for step in few], few)
    assert (finished.speed_ratio, finished.noise, finished.faster) == (pytest.approx(2.0), None, None)


def turns_of(seconds, tokens=1):
    return [Turn(1 + number * tokens, tokens, spent_s) for number, spent_s in enumerate(seconds)]


def test_the_noise_falls_with_the_root_of_the_steps():
    few, many = turns_of([1.0, 2.0] * 10), turns_of([1.0, 2.0] * 1000)
    assert math.log(ratio_noise(few, few)) / math.log(ratio_noise(many, many)) == pytest.approx(10, rel=0.05)
    assert ratio_noise(turns_of([1.0] * 20), turns_of([2.0] * 20)) == 1.0


def test_a_text_within_the_budget_is_told_and_has_no_winner():
    dense, quest = alternating(1.9, 2.1, 20), alternating(0.9, 1.1, 20)
    assert race_of(dense, quest, token_budget=100).fits_budget
    assert race_of(dense, quest, token_budget=100).faster is None
    # Its last steps went beyond the budget.
    assert not race_of(dense, quest, token_budget=25).fits_budget


def rounds_of(rounds, stops_at=None):
    """A fake speculative decode of x's after a free first token: of each round its seconds, and how many of how many
    drafts were accepted."""
    letters = itertools.count(1)
    yield DecodeStep(0, ord("x"), 0.0, 20, 0, 40, None, None)
    for round_s, accepted, drafted in rounds:
        for row in range(1 + accepted):
            counts = (drafted, accepted) if row == 0 else (0, 0)
            step = next(letters)
            last = step == stops_at
            token_id = 0 if last else ord("x")
            share_s = round_s / (1 + accepted)
            yield DecodeStep(step, token_id, share_s, 20 + step, 30, 40, None, "stop" if last else None, *counts)
            if last:
                return


def run_exact(dense, exact, token_budget=2):
    new_text = functools.partial(TextStream, lambda ids: "".join(map(chr, ids)))
    *tokens, finished = run_race(dense, exact, new_text, token_budget, "exact")
    return tokens, finished


def test_a_round_is_one_turn_and_costs_its_time_before_its_tokens_are_shown():
    rounds = [(1.0, 0, 0), (2.0, 3, 3), (2.0, 1, 4), (2.0, 2, 2)] * 2
    tokens, finished = run_exact(steps_of(1.0, "x" * 19), rounds_of(rounds, stops_at=19))
    exact = [token for token in tokens if token.side == "quest"]
    ends = [0.0, 1.0, *[3.0] * 4, *[5.0] * 2, *[7.0] * 3, 8.0, *[10.0] * 4, *[12.0] * 2, *[14.0] * 2]
    assert [token.at_s for token in exact] == pytest.approx(ends)
    # The others of a round follow at once: they wait for nobody.
    for before, token in itertools.pairwise(tokens):
        if token.side == "quest" and token.step and token.at_s == exact[token.step - 1].at_s:
            assert before is exact[token.step - 1]
    used_s = {"dense": 0.0, "quest": 0.0}
    for token in tokens:
        if token.at_s > used_s[token.side]:
            other = "quest" if token.side == "dense" else "dense"
            assert used_s[token.side] <= used_s[other] or used_s[other] in (14.0, 19.0)
        used_s[token.side] = token.at_s
    assert (finished.quest.drafted_tokens, finished.quest.accepted_tokens) == (18, 12)
    assert [(token.drafted, token.accepted) for token in exact[2:7]] == [(3, 3), (0, 0), (0, 0), (0, 0), (4, 1)]
    # The answer ends within the last round, which took its whole time.
    assert finished.quest.finished_s == 14.0 and finished.lead_s == pytest.approx(5.0)
    assert finished.first_difference is None


def test_the_figures_of_rounds_leave_out_the_first_two_rounds_as_a_whole():
    rounds = [(9.0, 0, 0), (9.0, 3, 3), *[(2.0, 3, 4)] * 10]
    _, finished = run_exact(steps_of(1.0, "x" * 46), rounds_of(rounds, stops_at=45))
    assert finished.quest.tokens_per_s == pytest.approx(2.0)
    assert finished.quest.kv_bytes_per_token == 30
    assert finished.speed_ratio == pytest.approx(2.0)
    assert (finished.noise, finished.faster) == (pytest.approx(1.0), "quest")


def test_the_ratio_of_rounds_counts_their_part_of_the_steps_that_both_made():
    rounds = [(1.0, 0, 0), (1.0, 0, 3), *[(2.0, 3, 4)] * 20]
    _, finished = run_exact(steps_of([1.0] * 30 + [9.0] * 10, "x" * 30, end="length"), rounds_of(rounds, stops_at=60))
    assert finished.speed_ratio == pytest.approx(2.0)


def test_the_noise_counts_rounds_not_their_tokens():
    steps, seconds = turns_of([1.0] * 20), [1.0, 3.0] * 10
    assert ratio_noise(steps, turns_of(seconds, tokens=4)) == pytest.approx(ratio_noise(steps, turns_of(seconds)))
    assert ratio_noise(steps, turns_of([4.0] * (LEAST_TURNS - 1), tokens=4)) is None
    # Rounds of equal seconds spread, too, where they bring now more tokens and now fewer.
    uneven = [Turn(6 * number + first, tokens, 2.0) for number in range(10) for first, tokens in ((1, 1), (2, 5))]
    assert ratio_noise(steps, uneven) > ratio_noise(steps, turns_of([2.0] * 20, tokens=3)) == 1.0


def test_where_nothing_was_drafted_both_did_the_same_work():
    dense, exact = [1.0, 1.1] * 20, [(0.2, 0, 0), (0.3, 0, 0)] * 20
    _, finished = run_exact(steps_of(dense, "x" * 40), rounds_of(exact, stops_at=40))
    assert finished.is_same_work and finished.faster is None and not finished.fits_budget
    _, finished = run_exact(steps_of(dense, "x" * 40), rounds_of(exact, stops_at=40), token_budget=100)
    assert finished.is_same_work and finished.fits_budget


def test_a_race_that_is_cancelled_within_a_round_tells_what_there_is():
    exact = itertools.islice(rounds_of([(1.0, 0, 0), (2.0, 3, 3)]), 4)
    _, finished = run_exact(steps_of(1.0, "xx", end=None), exact)
    assert (finished.quest.finish_reason, finished.quest.decode_tokens) == ("cancelled", 4)
    assert finished.quest.finished_s == 3.0 and finished.stopped
