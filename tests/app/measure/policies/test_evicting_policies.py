"""Policies that evict for good: H2O and TOVA over tokens, against plain loops; RaaS over generated pages."""

from __future__ import annotations

import pytest
import torch

import kernels.cpu
from app.measure.policies.page_policies import RaasPages
from kernels.contract import SUMMARIES, CacheLayout, LayerCache, PageBudget, SequenceView
from quest_core.config import QuestConfig, SamplingConfig

PROMPT = 100
KEPT = QuestConfig(token_budget=41, dense_layers=2)
TOKEN_POLICIES = pytest.mark.parametrize("selection", ["h2o", "tova"])
# Pages of 8 whose answer may keep 4 of its own, the current one included.
RAAS = QuestConfig(token_budget=32, dense_layers=2, sink_pages=0, recent_pages=0)


def decode(session, token_ids, quest, never, new_tokens):
    list(session.prefill(token_ids, never))
    return list(session.decode(quest, SamplingConfig(max_new_tokens=new_tokens), never))


class Recorder:
    """Decodes with a token policy; notes queries, attended vectors and kept tokens of every layer and step."""

    def __init__(self, rival, token_ids, never, new_tokens=21):
        session, method = rival.session, rival.method
        self.prefill_queries = {layer: [] for layer in range(4)}
        self.steps = {2: [], 3: []}  # sparse layer -> (query, attended, kept tokens) of each step
        observe, attend = method.observe_prefill, method.attend

        def record_prefill(layer, queries, keys):
            self.prefill_queries[layer].append(queries)
            observe(layer, queries, keys)

        def record_step(layer, query, *arguments):
            attended, kept = attend(layer, query, *arguments)
            self.steps[layer].append((query, attended, kept))
            return attended, kept

        method.observe_prefill, method.attend = record_prefill, record_step
        list(session.prefill(token_ids, never))
        self.prefill_scores = method._scores.clone()
        list(session.decode(KEPT, SamplingConfig(max_new_tokens=new_tokens), never))
        self.keys_values = [session.cache.gather(layer, session.context_tokens) for layer in range(4)]

    def shares(self, layer, query, token_ids):
        """Shares of attention [query_heads, kept] of one query; `token_ids` holds a list for each query head."""
        keys = self.keys_values[layer][0].repeat_interleave(3, dim=0)
        logits = [query[head] @ keys[head, token_ids[head]].T / 8**0.5 for head in range(9)]
        return torch.stack(logits).softmax(dim=1)


def naive_prefill_scores(selection, recorder, layer):
    scores = torch.zeros(3 if selection == "h2o" else 1, PROMPT)
    for position, query in enumerate(torch.cat(recorder.prefill_queries[layer])):
        shares = recorder.shares(layer, query, [list(range(position + 1))] * 9)
        if selection == "h2o":
            scores[:, : position + 1] += shares.view(3, 3, -1).sum(1)
        elif position == PROMPT - 1:
            scores[0] = shares.mean(0)
    return scores


@TOKEN_POLICIES
@pytest.mark.parametrize("block_bytes", [1, 5000, 2**24])
def test_prefill_scores_equal_a_plain_loop(open_rival, prompt, never, monkeypatch, selection, block_bytes):
    monkeypatch.setattr("app.measure.policies.token_eviction.BLOCK_BYTES", block_bytes)
    recorder = Recorder(open_rival(selection), prompt(PROMPT), never, new_tokens=1)
    for layer in range(4):
        expected = naive_prefill_scores(selection, recorder, layer)
        torch.testing.assert_close(recorder.prefill_scores[layer, :, :PROMPT], expected, rtol=1e-4, atol=1e-5)
        assert recorder.prefill_scores[layer, :, PROMPT:].abs().sum() == 0


@TOKEN_POLICIES
def test_kept_tokens_equal_a_plain_loop(open_rival, prompt, never, selection):
    recorder = Recorder(open_rival(selection), prompt(PROMPT), never)
    budget, recent = 41, 20 if selection == "h2o" else 0
    for layer, steps in recorder.steps.items():
        assert len(steps) == 20
        values = recorder.keys_values[layer][1]
        scores = [dict(enumerate(row.tolist())) for row in naive_prefill_scores(selection, recorder, layer)]
        for position, (query, attended, kept) in enumerate(steps, start=PROMPT):
            for row in scores:
                for _ in range(len(row) - budget):
                    evictable = [token for token in row if token < position - recent]
                    del row[min(evictable, key=lambda token: (row[token], -token))]
                row[position] = 0.0
            assert kept.token_ids.tolist() == [sorted(row) for row in scores]
            rows = [sorted(scores[head // 3 if len(scores) == 3 else 0]) for head in range(9)]
            shares = recorder.shares(layer, query, rows)
            expected = torch.stack([shares[head] @ values[head // 3, rows[head]] for head in range(9)])
            torch.testing.assert_close(attended, expected, rtol=1e-4, atol=1e-5)
            for head in range(9):
                for token, share in zip(rows[head], shares[head].tolist(), strict=True):
                    if selection == "h2o":
                        scores[head // 3][token] += share
            if selection == "tova":
                scores = [dict(zip(rows[0], shares.mean(0).tolist(), strict=True))]


@TOKEN_POLICIES
def test_evicted_tokens_never_return_and_the_budget_holds(open_rival, prompt, never, selection):
    recorder = Recorder(open_rival(selection), prompt(PROMPT), never)
    for steps in recorder.steps.values():
        before = None
        for position, (_, _, kept) in enumerate(steps, start=PROMPT):
            assert kept.token_ids.shape == (1 if selection == "tova" else 3, 41 + 1)
            assert (kept.token_ids[:, -1] == position).all()
            rows = [set(row) for row in kept.token_ids.tolist()]
            for row, earlier in zip(rows, before or rows, strict=True):
                assert row <= earlier | {position}
            before = rows


@TOKEN_POLICIES
def test_a_budget_over_the_context_is_dense_attention(open_session, prompt, never, selection):
    scores = []
    for quest in (QuestConfig(attention="dense"), QuestConfig(token_budget=PROMPT + 20)):
        session = open_session(selection)
        list(session.prefill(prompt(PROMPT), never))
        fed = list(session.score(prompt(20, seed=1), quest, never))
        scores.append([token.log_probability for token in fed])
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)


@TOKEN_POLICIES
def test_a_fork_keeps_the_scores_and_leaves_the_original_alone(open_session, prompt, never, selection):
    sampling = SamplingConfig(max_new_tokens=20)
    expected = [step.token_id for step in decode(open_session(selection), prompt(PROMPT), KEPT, never, 20)]
    session = open_session(selection)
    list(session.prefill(prompt(PROMPT), never))
    for branch in (session.fork(), session.fork(), session):
        assert [step.token_id for step in branch.decode(KEPT, sampling, never)] == expected


@TOKEN_POLICIES
def test_going_back_starts_the_scores_anew(open_session, prompt, never, selection):
    session = open_session(selection)
    decode(session, prompt(PROMPT), KEPT, never, 20)
    other = prompt(60) + prompt(40, seed=2)
    assert next(iter(session.prefill(other, never))).reused_tokens == 0
    again = [step.token_id for step in decode(session, other, KEPT, never, 20)]
    fresh = [step.token_id for step in decode(open_session(selection), other, KEPT, never, 20)]
    assert again == fresh


@TOKEN_POLICIES
def test_a_follow_up_reuses_the_answer_and_reads_the_whole_cache_again(open_session, prompt, never, selection):
    session = open_session(selection)
    decode(session, prompt(PROMPT), KEPT, never, 20)
    follow_up = session.tokens + prompt(30, seed=3)
    assert next(iter(session.prefill(follow_up, never))).reused_tokens == PROMPT + 19
    step = decode(session, follow_up, QuestConfig(token_budget=400, dense_layers=2), never, 2)[-1]
    assert step.context_tokens == len(follow_up) + 1
    # All pages in the dense layers, and in the others all tokens; each a key and a value of 8 numbers, for 3 kv heads.
    pages = -(-step.context_tokens // 8)
    assert step.kv_bytes_read == 3 * (2 * pages * 8 + 2 * step.context_tokens) * 2 * 8 * 4


@TOKEN_POLICIES
def test_token_policies_count_tokens_and_no_summaries(open_session, prompt, never, selection):
    steps = decode(open_session(selection), prompt(PROMPT), KEPT, never, 20)
    token_bytes = 2 * 8 * 4
    for step in steps[1:]:
        pages = -(-step.context_tokens // 8)
        assert step.kv_bytes_read == 3 * (2 * pages * 8 + 2 * 42) * token_bytes
        assert step.kv_bytes_read < step.kv_bytes_dense
        assert step.reads.page_reads.shape == (4, pages)
        assert (step.reads.page_reads[:2] == 3).all()
        sparse = step.reads.page_reads[2:]
        assert (sparse[:, list(step.reads.always_read_pages)] == 3).all()
        if selection == "tova":
            assert set(sparse.flatten().tolist()) <= {0, 3}
            assert step.reads.always_read_pages == (pages - 1,)
        else:
            assert step.reads.always_read_pages[0] == (step.context_tokens - 21) // 8


def test_raas_pins_the_prompt_and_bounds_what_was_generated(open_session, prompt, never):
    prompt_pages = -(-PROMPT // 8)
    was_read = None
    for step in decode(open_session("raas"), prompt(PROMPT), RAAS, never, 90)[1:]:
        sparse, heads = step.reads.page_reads[2:], step.reads.kv_heads
        pages = sparse.shape[1]
        assert (sparse[:, :prompt_pages] == heads).all()
        assert (sparse[:, -1] == heads).all()
        assert (sparse[:, prompt_pages:].sum(axis=1) == min(4, pages - prompt_pages) * heads).all()
        if was_read is not None:
            assert (sparse[:, : was_read.shape[1]] <= was_read).all()
        was_read = sparse
    assert was_read[:, prompt_pages:].min() == 0


class FixedScores(RaasPages):
    """RaaS with logits given from outside."""

    logits: list[float] = []

    def score(self, query, cache, sequence, scale):
        return torch.tensor([[self.logits]], dtype=torch.float32)


def select(policy, context_tokens, logits):
    num_pages = -(-context_tokens // 8)
    policy.logits = logits
    layout = CacheLayout(8, 1, 4, torch.float32, SUMMARIES["bounds"], torch.float32)
    cache = LayerCache(layout, **{name: torch.empty(spec.shape) for name, spec in layout.specs(9).items()})
    table, length = torch.arange(num_pages, dtype=torch.int32), torch.tensor([context_tokens], dtype=torch.int32)
    selected = policy.select(torch.zeros(2, 4), cache, SequenceView(table, length), 0.5)
    assert selected.page_counts.tolist() == [selected.page_ids.shape[1]]
    return selected.page_ids[0].tolist()


def test_raas_evicts_the_page_that_was_important_longest_ago():
    policy = FixedScores(PageBudget(3, 0, 0), kernels.cpu)
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


def test_raas_counts_the_summaries_it_reads(open_session, prompt, never):
    step = decode(open_session("raas"), prompt(PROMPT), RAAS, never, 90)[-1]
    layers, heads, pages = 4, step.reads.kv_heads, step.reads.page_reads.shape[1]
    page_bytes, summary_bytes = 8 * 2 * 8 * 4, 2 * (8 + 4)
    assert step.kv_bytes_read == int(step.reads.page_reads.sum()) * page_bytes + 2 * heads * pages * summary_bytes
    assert step.kv_bytes_read < step.kv_bytes_dense == layers * heads * pages * page_bytes
