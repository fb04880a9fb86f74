"""Sampling: what each filter leaves, and that drawing follows the probabilities."""

from __future__ import annotations

import pytest
import torch

from quest_core.config import SamplingConfig
from quest_core.decode.sampling import (
    NotANumberError,
    Sampler,
    SamplingKind,
    SamplingTensors,
    draw_token,
    filter_probabilities,
    find_highest_in_parts,
)

LOGITS = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.05]).log()


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"top_k": 2}, [0, 1]),
        ({"top_p": 0.6}, [0, 1]),
        ({"top_p": 0.5}, [0]),
        ({"top_p": 0.01}, [0]),
        ({"min_p": 0.25}, [0, 1, 2]),
        ({"min_p": 0.25, "top_k": 4}, [0, 1, 2]),
        ({"top_k": 4, "top_p": 0.8}, [0, 1, 2]),
    ],
)
def test_filters_keep(settings, kept):
    config, tensors = SamplingConfig(temperature=1.0, **settings), SamplingTensors(5, LOGITS.device)
    tensors.set(config, [])
    probabilities = filter_probabilities(LOGITS, SamplingKind.of(config), tensors)
    assert probabilities.nonzero().flatten().tolist() == kept


def test_greedy_takes_the_likeliest():
    assert Sampler(SamplingConfig(), 5, LOGITS.device).draw(LOGITS).tolist() == [0]


def test_draws_follow_the_probabilities():
    sampler = Sampler(SamplingConfig(temperature=1.0, seed=0), 5, LOGITS.device)
    counts = torch.zeros(5)
    for _ in range(4000):
        counts[sampler.draw(LOGITS)] += 1
    torch.testing.assert_close(counts / 4000, LOGITS.exp(), rtol=0, atol=0.03)


def test_the_repetition_penalty_counts_this_answer_only():
    sampler = Sampler(SamplingConfig(repetition_penalty=5.0), 3, LOGITS.device)
    logits = torch.tensor([2.0, 1.5, -1.0])
    assert [int(sampler.draw(logits)) for _ in range(3)] == [0, 1, 0]
    assert logits.tolist() == [2.0, 1.5, -1.0]


def test_a_filtered_token_never_wins_whatever_the_noise():
    config, tensors = SamplingConfig(temperature=1.0, top_k=2), SamplingTensors(5, LOGITS.device)
    tensors.set(config, [])
    tensors.noise.copy_(torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0]))
    assert draw_token(LOGITS, None, SamplingKind.of(config), tensors).tolist() == [0]


def test_a_penalty_may_start_from_tokens_already_drawn():
    config, tensors = SamplingConfig(repetition_penalty=5.0), SamplingTensors(3, LOGITS.device)
    tensors.set(config, [0])
    logits, kind = torch.tensor([2.0, 1.5, -1.0]), SamplingKind.of(config)
    assert draw_token(logits, None, kind, tensors).tolist() == [1]
    assert draw_token(logits, torch.tensor([1]), kind, tensors).tolist() == [0]
    tensors.set(SamplingConfig(), [0])  # another answer, without a penalty
    assert not tensors.drawn.any()


@pytest.mark.parametrize("count", [1, 7, 128, 384, 50257, 49152])
def test_the_highest_is_found_and_the_first_of_equal_ones(count):
    values = torch.randn(count, generator=torch.Generator().manual_seed(count)).round(decimals=1)
    highest, index = find_highest_in_parts(values)
    assert (highest.tolist(), index.tolist()) == ([float(values.max())], [int(values.argmax())])
    assert find_highest_in_parts(torch.zeros(count))[1].tolist() == [0]


DRAWS = {
    "greedy": SamplingConfig(),
    "sampled": SamplingConfig(temperature=1.0, seed=1),
    "ranked": SamplingConfig(temperature=1.0, top_k=3, top_p=0.9, min_p=0.01, repetition_penalty=1.2, seed=1),
}


@pytest.mark.parametrize("config", DRAWS.values(), ids=DRAWS)
@pytest.mark.parametrize(
    "damage",
    [
        [float("nan")] * 5,
        [0.1, 0.2, float("nan"), 0.3, 0.4],
        [0.1, float("inf"), 0.2, 0.3, 0.4],
        [float("-inf")] * 5,
    ],
)
def test_logits_that_are_no_numbers_are_named(config, damage):
    sampler = Sampler(config, 5, LOGITS.device)
    assert sampler.read(sampler.draw(LOGITS)) in range(5)
    token = sampler.draw(torch.tensor(damage))
    # It may be fed before the host has looked at it.
    assert int(token) in range(5)
    with pytest.raises(NotANumberError, match="not a number"):
        sampler.read(token)


def test_a_temperature_of_next_to_nothing_is_greedy():
    for temperature in (1e-300, 1e-40, 1e-7):
        sampler = Sampler(SamplingConfig(temperature=temperature), 5, LOGITS.device)
        assert sampler.read(sampler.draw(LOGITS * 1e4)) == 0


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_new_tokens"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_settings_that_are_no_numbers_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        SamplingConfig(**{name: value})


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1])
def test_a_seed_too_long_is_refused(seed):
    with pytest.raises(ValueError, match="seed"):
        SamplingConfig(seed=seed)
    Sampler(SamplingConfig(seed=2**64 - 1), 5, LOGITS.device)
    Sampler(SamplingConfig(seed=-(2**63)), 5, LOGITS.device)
