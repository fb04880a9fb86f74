"""The selection policies: their scores against plain formulas, and each in a running engine."""

from __future__ import annotations

import pytest
import torch

import kernels.cpu
from kernels.contract import SUMMARIES, CacheLayout, LayerCache, PageBudget, SequenceView
from quest_core.config import SELECTIONS, EngineConfig, QuestConfig, SamplingConfig
from quest_core.engine import Engine
from quest_core.page_selection import POLICIES

CONTEXT = 75  # tokens; the last page of 16 holds 11
SCALE = 1 / 8  # of the logits of 64 channels


@pytest.fixture
def layer(request):
    """The cache of one layer with random keys and the summaries of a policy: (keys, cache, sequence)."""
    generator = torch.Generator().manual_seed(3)
    keys = torch.randn((CONTEXT, 2, 64), generator=generator)
    page_table = torch.tensor([4, 0, 5, 2, 1], dtype=torch.int32)

    def fill(summary):
        layout = CacheLayout(16, 2, 64, torch.float32, SUMMARIES[summary], torch.float32)
        specs = layout.specs(6).items()
        cache = LayerCache(layout, **{name: torch.full(spec.shape, float("nan")) for name, spec in specs})
        sequence = SequenceView(page_table, torch.tensor([CONTEXT], dtype=torch.int32))
        kernels.cpu.append_keys_values(keys, keys, cache, sequence)
        return keys, cache, sequence

    return fill


def score(name, layer, queries):
    policy = POLICIES[name](PageBudget(4, 1, 1), kernels.cpu)
    keys, cache, sequence = layer(policy.summary)
    scores = policy.score(queries.flatten(0, 1), cache, sequence, SCALE)
    return keys, scores.softmax(dim=2).mean(dim=1) if policy.scores_are_logits else scores[:, 0] * 8.0


def test_every_selection_has_its_policy():
    assert tuple(POLICIES) == SELECTIONS


def test_quest_is_the_mean_of_the_papers_scores(layer):
    queries = torch.randn((2, 3, 64), generator=torch.Generator().manual_seed(1))
    keys, scores = score("quest", layer, queries)
    for page in range(5):
        page_keys = keys[page * 16 : (page + 1) * 16].transpose(0, 1)  # [kv_heads, tokens, head_dim]
        low, high = page_keys.amin(1, keepdim=True), page_keys.amax(1, keepdim=True)
        expected = torch.maximum(queries * low, queries * high).sum(2).mean(1)
        torch.testing.assert_close(scores[:, page], expected)


def test_spread_is_the_mean_of_estimated_shares(layer):
    queries = torch.randn((2, 3, 64), generator=torch.Generator().manual_seed(1))
    keys, scores = score("spread", layer, queries)
    logits = []
    for page in range(5):
        page_keys = keys[page * 16 : (page + 1) * 16].transpose(0, 1)
        mean = page_keys.mean(1, keepdim=True)
        deviation = (page_keys - mean).abs().mean(1, keepdim=True)
        logits.append(((queries * mean).sum(2) + (queries.abs() * deviation).sum(2)) / 8.0)
    expected = torch.stack(logits, dim=2).softmax(2).mean(1)
    torch.testing.assert_close(scores, expected)


def test_mean_is_the_mean_of_estimated_shares(layer):
    queries = torch.randn((2, 3, 64), generator=torch.Generator().manual_seed(1))
    keys, scores = score("mean", layer, queries)
    means = torch.stack([keys[page * 16 : (page + 1) * 16].mean(0) for page in range(5)], dim=1)
    expected = (torch.einsum("hgd,hpd->hgp", queries, means) / 8.0).softmax(2).mean(1)
    torch.testing.assert_close(scores, expected)


def test_oracle_is_the_true_share(layer):
    queries = torch.randn((2, 3, 64), generator=torch.Generator().manual_seed(1))
    keys, scores = score("oracle", layer, queries)
    shares = (torch.einsum("hgd,thd->hgt", queries, keys) / 8.0).softmax(2).mean(1)
    expected = torch.nn.functional.pad(shares, (0, 5)).view(2, 5, 16).sum(2)
    torch.testing.assert_close(scores, expected)
    torch.testing.assert_close(scores.sum(1), torch.ones(2))


def test_streaming_reads_the_ends(layer):
    policy = POLICIES["streaming"](PageBudget(4, 1, 1), kernels.cpu)
    _, cache, sequence = layer("bounds")
    selected = policy.select(torch.randn(6, 64), cache, sequence, SCALE)
    assert selected.page_ids.tolist() == [[0, 2, 3, 4]] * 2


@pytest.mark.parametrize("selection", SELECTIONS)
def test_every_policy_decodes_and_is_exact_with_a_full_budget(tiny_folder, generate, prompt, selection):
    config = EngineConfig(device="cpu", dtype="float32", page_size=8, selection=selection)
    engine = Engine.load(str(tiny_folder), config)
    sampling = SamplingConfig(max_new_tokens=12)
    dense = generate(engine.new_session(), prompt(250), QuestConfig(attention="dense"), sampling)
    assert generate(engine.new_session(), prompt(250), QuestConfig(token_budget=272), sampling) == dense
    assert len(generate(engine.new_session(), prompt(250), QuestConfig(token_budget=64), sampling)) == 12
    engine.close()
