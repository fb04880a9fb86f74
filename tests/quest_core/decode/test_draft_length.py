"""How many tokens are drafted, given what drafts and passes cost and how many are accepted."""

from __future__ import annotations

import random

import pytest

from quest_core.decode.draft_length import (
    MOST_DRAFTS,
    STEPS_BETWEEN_TRIALS,
    UNPROMISING,
    DraftLength,
    FinishedRound,
    RoundCosts,
)


def play(acceptance, draft_s, row_s, rounds=400, dense_s=1.0, seed=0):
    """Rounds in which each draft is accepted by a chance that grows with its confidence.

    Returns:
        Tokens per second relative to dense steps, over the second half of the rounds, and the drafts of each round.
    """
    chance, length = random.Random(seed), DraftLength()
    seconds, tokens, drafts_of_rounds = 0.0, 0, []
    for number in range(rounds):
        confidences = []
        while length.wants_another(confidences):
            confidences.append(min(1.0, max(0.0, acceptance + chance.uniform(-0.1, 0.1))))
        accepted = 0
        while accepted < len(confidences) and chance.random() < confidences[accepted]:
            accepted += 1
        verify_s = dense_s + row_s * len(confidences)
        length.finish(FinishedRound(confidences, accepted, [draft_s] * len(confidences), verify_s))
        drafts_of_rounds.append(len(confidences))
        if 2 * number >= rounds:
            seconds += verify_s + draft_s * len(confidences)
            tokens += accepted + 1
    return tokens * dense_s / seconds, drafts_of_rounds


def best_of_fixed(acceptance, draft_s, row_s):
    def rate(drafts):
        expected = sum(acceptance**drafted for drafted in range(drafts + 1))
        return expected / (1.0 + drafts * (draft_s + row_s))

    return max(rate(drafts) for drafts in range(MOST_DRAFTS + 1))


@pytest.mark.parametrize(
    ("acceptance", "draft_s", "row_s"),
    [(0.95, 0.15, 0.05), (0.9, 0.2, 0.05), (0.8, 0.2, 0.1), (0.6, 0.1, 0.05), (0.85, 0.4, 0.1), (0.3, 0.1, 0.05)],
)
def test_close_to_the_best_fixed_length(acceptance, draft_s, row_s):
    speed, _ = play(acceptance, draft_s, row_s, rounds=2000)
    assert speed > 0.93 * best_of_fixed(acceptance, draft_s, row_s)


@pytest.mark.parametrize(("acceptance", "draft_s", "row_s"), [(0.95, 0.95, 0.1), (0.05, 0.2, 0.1), (0.5, 0.5, 0.3)])
def test_plain_steps_where_drafting_does_not_pay(acceptance, draft_s, row_s):
    speed, drafts = play(acceptance, draft_s, row_s, rounds=1000)
    assert speed > 0.97
    assert drafts[0] == 0  # the first tells what a dense step costs
    assert sum(map(bool, drafts[500:])) <= 2 * 500 / STEPS_BETWEEN_TRIALS


def play_ahead(acceptance, draft_s, row_s, rounds=2000, dense_s=1.0, seed=0):
    """As `play`, with rounds of 1, 3 or 7 drafts that must be chosen before they start."""
    chance, length = random.Random(seed), DraftLength()
    seconds, tokens, drafts_of_rounds = 0.0, 0, []
    for number in range(rounds):
        drafts, accepted = length.drafts_ahead(AHEAD), 0
        while accepted < drafts and chance.random() < acceptance:
            accepted += 1
        verify_s = dense_s + row_s * drafts
        length.finish(FinishedRound((), accepted, [draft_s] * drafts, verify_s))
        drafts_of_rounds.append(drafts)
        if 2 * number >= rounds:
            seconds += verify_s + draft_s * drafts
            tokens += accepted + 1
    return tokens * dense_s / seconds, drafts_of_rounds


AHEAD = (1, 3, 7)


@pytest.mark.parametrize(
    ("acceptance", "draft_s", "row_s"),
    [(0.95, 0.15, 0.05), (0.9, 0.2, 0.05), (0.8, 0.2, 0.1), (0.6, 0.1, 0.05), (0.85, 0.4, 0.1), (0.3, 0.1, 0.05)],
)
def test_rounds_chosen_ahead_are_close_to_the_best_fixed_length(acceptance, draft_s, row_s):
    speed, chosen = play_ahead(acceptance, draft_s, row_s)
    expected = {drafts: sum(acceptance**drafted for drafted in range(drafts + 1)) for drafts in (0, *AHEAD)}
    best = max(tokens / (1.0 + drafts * (draft_s + row_s)) for drafts, tokens in expected.items())
    assert speed > 0.93 * best
    assert set(chosen) <= {0, *AHEAD}


@pytest.mark.parametrize(("acceptance", "draft_s", "row_s"), [(0.95, 0.95, 0.1), (0.05, 0.2, 0.1), (0.5, 0.5, 0.3)])
def test_plain_steps_chosen_ahead_where_drafting_does_not_pay(acceptance, draft_s, row_s):
    speed, drafts = play_ahead(acceptance, draft_s, row_s)
    assert speed > 0.97
    assert drafts[:3] == [0, 1, 3]  # the first tells what a dense step costs, the others what drafts do
    assert sum(map(bool, drafts[500:])) <= 2 * 1500 / STEPS_BETWEEN_TRIALS


def test_rounds_chosen_ahead_are_among_the_choices():
    length = DraftLength()
    assert length.drafts_ahead(AHEAD) == 0
    length.finish(FinishedRound((), 0, [], 1.0))
    assert (length.drafts_ahead(()), length.drafts_ahead((1,)), length.drafts_ahead(AHEAD)) == (0, 1, 1)
    length.finish(FinishedRound((), 1, [0.01], 1.01))
    assert (length.drafts_ahead((1,)), length.drafts_ahead(AHEAD)) == (1, 3)
    length.finish(FinishedRound((), 1, [0.01], 1.01))
    assert (length.drafts_ahead(AHEAD), length.drafts_ahead((1, 3))) == (7, 3)


def test_the_drafts_that_a_pass_has_room_for_are_made_where_more_do_not_pay():
    """As on a CPU whose passes over two and three tokens take little more than one, and over four twice as long."""
    seconds, drafts_of_rounds = {1: 1.0, 2: 1.1, 3: 1.25, 4: 2.2}, []
    length = DraftLength()
    for _ in range(200):
        confidences = []
        while length.wants_another(confidences):
            confidences.append(0.95)
        drafts = len(confidences)
        verify_s = seconds.get(1 + drafts, 0.6 * (1 + drafts))
        length.finish(FinishedRound(confidences, drafts, [0.45] * drafts, verify_s))
        drafts_of_rounds.append(drafts)
    assert drafts_of_rounds[:3] == [0, 1, 3]
    assert {1, 2} & set(drafts_of_rounds[100:]) and sum(drafts_of_rounds[100:]) >= 95


def test_one_slow_round_changes_little():
    steady, slow = DraftLength(), DraftLength()
    for number in range(60):
        for length in (steady, slow):
            drafts = 0 if number == 0 else 4
            factor = 30 if length is slow and number == 40 else 1
            length.finish(FinishedRound([0.95] * drafts, drafts, [factor * 0.2] * drafts, 1.0 + 0.05 * drafts))
    for drafted in range(MOST_DRAFTS + 1):
        assert steady.wants_another([0.95] * drafted) == slow.wants_another([0.95] * drafted)


# As the 8B shape on an H200 at 8K and at 128K tokens: milliseconds of the first draft, of the others, and of passes.
AT_8K = (2.2, 1.9, {1: 2.1, 2: 3.1, 4: 5.2, 8: 9.6})
AT_128K = (2.8, 1.9, {1: 5.7, 2: 6.7, 4: 8.9, 8: 13.4})


def answer(costs, measured, rounds=200, acceptance=0.9, seed=1):
    """Rounds of one answer over shared `costs`: the drafts of each, and tokens a second over those of dense steps."""
    first_s, next_s, pass_s = measured
    chance, length, drafts_of_rounds, seconds, tokens = random.Random(seed), DraftLength(costs), [], 0.0, 0
    for _ in range(rounds):
        drafts, accepted = length.drafts_ahead(AHEAD), 0
        while accepted < drafts and chance.random() < acceptance:
            accepted += 1
        draft_s = [first_s, *[next_s] * (drafts - 1)][:drafts]
        length.finish(FinishedRound((), accepted, draft_s, pass_s[1 + drafts]))
        drafts_of_rounds.append(drafts)
        seconds += sum(draft_s) + pass_s[1 + drafts]
        tokens += accepted + 1
    return drafts_of_rounds, tokens / seconds * pass_s[1]


def test_what_cannot_pay_is_hardly_ever_tried():
    """Every draft is accepted, and dense steps are still faster; only a later measurement could tell otherwise."""
    costs = RoundCosts()
    drafts, _ = answer(costs, AT_8K, rounds=3, acceptance=1.0)
    assert drafts == [0, 1, 3] and not costs.may_pay(AHEAD)
    drafts, speed = answer(costs, AT_8K, rounds=1000, acceptance=1.0)
    assert (sum(map(bool, drafts)), speed) == (0, pytest.approx(1.0))
    drafts, _ = answer(costs, AT_8K, rounds=UNPROMISING * STEPS_BETWEEN_TRIALS, acceptance=1.0)
    assert sum(map(bool, drafts)) == 1


def test_an_answer_begins_with_what_earlier_ones_have_cost():
    costs = RoundCosts()
    drafts, _ = answer(costs, AT_128K)
    assert drafts[:3] == [0, 1, 3]
    drafts, speed = answer(costs, AT_128K)
    assert drafts[0] == 3 and speed > 1.15
    # How many drafts are accepted is each answer's own.
    drafts, speed = answer(costs, AT_128K, acceptance=0.05)
    assert drafts[0] == 3 and drafts[50:].count(0) > 140 and speed > 0.9
    assert answer(costs, AT_128K)[0][0] == 3


def test_costs_measured_badly_are_measured_again():
    """Drafts were slow while something else had the device."""
    costs = RoundCosts()
    slow = (40.0, 30.0, {rows: 5 * seconds for rows, seconds in AT_128K[2].items()} | {1: 5.7})
    answer(costs, slow, rounds=3)
    assert not costs.may_pay(AHEAD)
    drafts, _ = answer(costs, AT_128K, rounds=20_000)
    assert drafts[-100:].count(0) < 50
