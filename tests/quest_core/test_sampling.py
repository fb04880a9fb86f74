"""Sampling: what each filter leaves, and that drawing follows the probabilities."""

from __future__ import annotations

import pytest
import torch

from quest_core.config import SamplingConfig
from quest_core.sampling import Sampler, filter_probabilities

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
        ({"top_k": 4, "top_p": 0.8}, [0, 1, 2]),
    ],
)
def test_filters_keep(settings, kept):
    probabilities = filter_probabilities(LOGITS, SamplingConfig(temperature=1.0, **settings))
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
