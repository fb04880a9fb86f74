"""Policies that choose pages, against plain formulas; and each of them in a running engine."""

from __future__ import annotations

import pytest
import torch

import kernels.cpu
from app.measure.policies import POLICIES
from app.measure.policies.page_policies import OraclePages, StreamingPages
from app.measure.policies.rivals import PAGE_POLICIES, TOKEN_POLICIES
from kernels.contract import SUMMARIES, CacheLayout, LayerCache, PageBudget, SequenceView
from quest_core.config import QuestConfig, SamplingConfig

CONTEXT = 75  # tokens; the last page of 16 holds 11
SCALE = 1 / 8  # of the logits of 64 channels
BUDGET = PageBudget(4, 1, 1)


@pytest.fixture
def layer() -> tuple[torch.Tensor, LayerCache, SequenceView]:
    """Random keys [tokens, kv_heads, head_dim], the cache of a layer with them, and their sequence."""
    keys = torch.randn((CONTEXT, 2, 64), generator=torch.Generator().manual_seed(3))
    layout = CacheLayout(16, 2, 64, torch.float32, SUMMARIES["bounds"], torch.float32)
    specs = layout.specs(6).items()
    cache = LayerCache(layout, **{name: torch.full(spec.shape, float("nan")) for name, spec in specs})
    page_table = torch.tensor([4, 0, 5, 2, 1], dtype=torch.int32)
    sequence = SequenceView(page_table, torch.tensor([CONTEXT], dtype=torch.int32))
    kernels.cpu.append_keys_values(keys, keys, cache, sequence)
    return keys, cache, sequence


def test_every_policy_has_its_name():
    assert (*PAGE_POLICIES, *TOKEN_POLICIES) == POLICIES


def test_oracle_is_the_true_attention(layer):
    keys, cache, sequence = layer
    queries = torch.randn((2, 3, 64), generator=torch.Generator().manual_seed(1))
    scores = OraclePages(BUDGET, kernels.cpu).score(queries.flatten(0, 1), cache, sequence, SCALE)
    mass = scores.softmax(dim=2).mean(dim=1)
    of_tokens = (torch.einsum("hgd,thd->hgt", queries, keys) / 8.0).softmax(2).mean(1)
    expected = torch.nn.functional.pad(of_tokens, (0, 5)).view(2, 5, 16).sum(2)
    torch.testing.assert_close(mass, expected)
    torch.testing.assert_close(mass.sum(1), torch.ones(2))


def test_streaming_reads_the_ends(layer):
    _, cache, sequence = layer
    selected = StreamingPages(BUDGET, kernels.cpu).select(torch.randn(6, 64), cache, sequence, SCALE)
    assert selected.page_ids.tolist() == [[0, 2, 3, 4]] * 2


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_decodes_and_is_exact_with_a_full_budget(open_session, generate, prompt, policy):
    sampling = SamplingConfig(max_new_tokens=12)
    dense = generate(open_session(policy), prompt(250), QuestConfig(attention="dense"), sampling)
    assert generate(open_session(policy), prompt(250), QuestConfig(token_budget=272), sampling) == dense
    assert len(generate(open_session(policy), prompt(250), QuestConfig(token_budget=64), sampling)) == 12
