"""Sampling: what each filter leaves, and that drawing follows the probabilities."""

from __future__ import annotations

import pytest
import torch

from quest_core.config import SamplingConfig
from quest_core.sampling import (
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
    numbers = torch.randn(count, generator=torch.Generator().manual_seed(count)).round(decimals=1)
    assert find_highest_in_parts(numbers).tolist() == [int(numbers.argmax())]
    assert find_highest_in_parts(torch.zeros(count)).tolist() == [0]
