"""Policies that evict for good: RaaS over generated pages."""

from __future__ import annotations

import pytest
import torch

import kernels.cpu
from quest_core.config import EngineConfig, QuestConfig, SamplingConfig
from quest_core.engine import Engine
from quest_core.page_selection import RaasSelection
from quest_core.paged_kv_cache import LayerPages

PROMPT = 100
# Pages of 8 whose answer may keep 4 of its own, the current one included.
RAAS = QuestConfig(token_budget=32, sink_pages=0, recent_pages=0)


@pytest.fixture(scope="module")
def load_engine(tiny_folder):
    """Engines of the tiny model with pages of 8, one for each policy."""
    engines = {}

    def load(selection):
        if selection not in engines:
            config = EngineConfig(
                device="cpu", dtype="float32", page_size=8, selection=selection, prefill_chunk_tokens=33
            )
            engines[selection] = Engine.load(str(tiny_folder), config)
        return engines[selection]

    yield load
    for engine in engines.values():
        engine.close()


def decode(session, token_ids, quest, never, new_tokens):
    list(session.prefill(token_ids, never))
    return list(session.decode(quest, SamplingConfig(max_new_tokens=new_tokens), never))


def test_raas_pins_the_prompt_and_bounds_what_was_generated(load_engine, prompt, never):
    prompt_pages = -(-PROMPT // 8)
    was_read = None
    for step in decode(load_engine("raas").new_session(), prompt(PROMPT), RAAS, never, 90)[1:]:
        sparse, heads = step.reads.page_reads[2:], step.reads.kv_heads
        pages = sparse.shape[1]
        assert (sparse[:, :prompt_pages] == heads).all()
        assert (sparse[:, -1] == heads).all()
        assert (sparse[:, prompt_pages:].sum(axis=1) == min(4, pages - prompt_pages) * heads).all()
        if was_read is not None:
            assert (sparse[:, : was_read.shape[1]] <= was_read).all()
        was_read = sparse
    assert was_read[:, prompt_pages:].min() == 0


class FixedScores(RaasSelection):
    """RaaS with logits given from outside."""

    logits: list[float] = []

    def score(self, queries, pages, page_table, context_tokens):
        return torch.tensor([self.logits], dtype=torch.float32) * queries.shape[2] ** 0.5


def select(policy, context_tokens, logits):
    num_pages = -(-context_tokens // 8)
    policy.logits = logits
    pages = LayerPages(torch.empty(9, 1, 8, 4), torch.empty(9, 1, 8, 4), torch.empty(9, 1, 2, 4))
    table = torch.arange(num_pages, dtype=torch.int32)
    selected = policy.select(torch.zeros(2, 4), pages, table, torch.tensor([context_tokens], dtype=torch.int32))
    assert selected.page_counts.tolist() == [selected.page_ids.shape[1]]
    return selected.page_ids[0].tolist()


def test_raas_evicts_the_page_that_was_important_longest_ago():
    policy = FixedScores(QuestConfig(token_budget=24, sink_pages=0, recent_pages=0), 8, kernels.cpu)
    never_important = -20.0
    assert select(policy, 10, [0.0, never_important]) == [0, 1]  # a prompt of 9 tokens: both pages are pinned
    for pages in (3, 4, 5):
        # Page 2 stays important, page 3 never is once it is full.
        logits = [never_important, never_important, 0.0, never_important, 0.0][:pages]
        assert select(policy, 8 * pages - 7, logits) == list(range(pages))
        assert select(policy, 8 * pages, logits) == list(range(pages))
    assert select(policy, 41, [-20.0, -20.0, 0.0, -20.0, 0.0, 0.0]) == [0, 1, 2, 4, 5]
    # An evicted page does not return, however high it would score.
    assert select(policy, 42, [-20.0, -20.0, -20.0, 90.0, 0.0, 0.0]) == [0, 1, 2, 4, 5]
    # Of the three that are left, page 2 was last important one step before the others.
    assert select(policy, 49, [-20.0, -20.0, -20.0, 0.0, 0.0, 0.0, 0.0]) == [0, 1, 4, 5, 6]


def test_raas_counts_the_summaries_it_reads(load_engine, prompt, never):
    step = decode(load_engine("raas").new_session(), prompt(PROMPT), RAAS, never, 90)[-1]
    layers, heads, pages = 4, step.reads.kv_heads, step.reads.page_reads.shape[1]
    page_bytes, summary_bytes = 8 * 2 * 8 * 4, 2 * 8 * 4
    assert step.kv_bytes_read == int(step.reads.page_reads.sum()) * page_bytes + 2 * heads * pages * summary_bytes
    assert step.kv_bytes_read < step.kv_bytes_dense == layers * heads * pages * page_bytes
