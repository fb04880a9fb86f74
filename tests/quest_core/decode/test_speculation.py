"""Speculative decoding gives dense decoding's tokens, whatever is drafted, and wherever a round is broken off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import pytest
import torch

from quest_core.cache.paged_kv_cache import PagePool, PoolExhausted, SequenceCache
from quest_core.config import QuestConfig, SamplingConfig
from quest_core.decode import speculation
from quest_core.decode.answer_steps import append_token
from quest_core.decode.draft_attention import DraftAttention
from quest_core.decode.sampling import Sampler
from quest_core.decode.speculation import SpeculativeSteps
from quest_core.engine import Cancellation

DENSE = QuestConfig(attention="dense")
# Six of ten or more pages of 16, of which three are always read: a random model's drafts are refused often.
EXACT = QuestConfig(attention="exact", token_budget=96)
SAMPLED = {"temperature": 1.0, "top_p": 0.9, "seed": 5}


class FixedLength:
    """Drafts as many tokens in every round, whatever they cost; notes the rounds."""

    def __init__(self, drafts: int) -> None:
        self.drafts = drafts
        self.rounds: list[tuple[int, int]] = []

    def wants_another(self, confidences: Sequence[float]) -> bool:
        return len(confidences) < self.drafts

    def finish(self, finished: speculation.FinishedRound) -> None:
        self.rounds.append((len(finished.confidences), finished.accepted))


@pytest.fixture(params=[1, 3, 7])
def lengths(request, monkeypatch) -> list[FixedLength]:
    """Every answer drafts so many tokens a round; the lengths of the answers since."""
    made: list[FixedLength] = []

    def make() -> FixedLength:
        made.append(FixedLength(request.param))
        return made[-1]

    monkeypatch.setattr(speculation, "DraftLength", make)
    return made


@pytest.fixture
def decode(never) -> Callable[..., list]:
    def run(session, token_ids: list[int], quest: QuestConfig, sampling: SamplingConfig) -> list:
        list(session.prefill(token_ids, never))
        return list(session.decode(quest, sampling, never))

    return run


def ids(steps) -> list[int]:
    return [step.token_id for step in steps]


@pytest.mark.parametrize("budget", [64, 96, 256])
@pytest.mark.parametrize("length", [159, 160, 167, 300])
def test_greedy_tokens_are_those_of_dense_decoding(new_session, decode, prompt, lengths, length, budget):
    sampling = SamplingConfig(max_new_tokens=60)
    dense = decode(new_session(), prompt(length), DENSE, sampling)
    exact = decode(new_session(), prompt(length), QuestConfig("exact", budget), sampling)
    assert ids(exact) == ids(dense)
    assert [step.context_tokens for step in exact] == [step.context_tokens for step in dense]
    # Some of the drafts were accepted, so that this says something.
    drafted, accepted = (sum(getattr(step, name) for step in exact) for name in ("drafted", "accepted"))
    assert (drafted, accepted) == tuple(map(sum, zip(*lengths[0].rounds, strict=True)))
    if length > budget:
        assert 0 < accepted <= drafted


@pytest.mark.parametrize(
    "sampling",
    [SAMPLED, {**SAMPLED, "top_k": 20, "min_p": 0.05}, {**SAMPLED, "repetition_penalty": 1.3},
     {"repetition_penalty": 1.5}],
    ids=["top-p", "top-k min-p", "penalised", "greedy penalised"],
)  # fmt: skip
def test_sampled_tokens_are_those_of_dense_decoding(new_session, decode, prompt, lengths, sampling):
    config = SamplingConfig(max_new_tokens=60, **sampling)
    dense = decode(new_session(), prompt(200), DENSE, config)
    exact = decode(new_session(), prompt(200), EXACT, config)
    assert ids(exact) == ids(dense)
    assert sum(step.accepted for step in exact) > 0


def test_samples_follow_dense_probabilities(new_session, decode, prompt, lengths, never):
    """Of the third token after given ones, over many seeds: what a round's second row draws, or a new round."""
    session = new_session()
    list(session.prefill(prompt(200), never))
    counts = torch.zeros(2, 211)
    for row, quest in enumerate((DENSE, EXACT)):
        for seed in range(60):
            fork = session.fork()
            sampling = SamplingConfig(temperature=0.7, top_k=4, max_new_tokens=3, seed=1000 * row + seed)
            counts[row, ids(fork.decode(quest, sampling, never))[-1]] += 1
            fork.close()
    # Half the sum of differences; two samples of 60 from the same 64 tokens at most differ by less than this.
    assert float((counts[0] - counts[1]).abs().sum()) / 120 < 0.75


def test_it_stops_where_dense_decoding_stops(new_session, decode, prompt, lengths):
    session = new_session()
    drawn = ids(decode(session, prompt(200), DENSE, SamplingConfig(max_new_tokens=30)))
    for position in range(2, 12):
        stop = SamplingConfig(max_new_tokens=30, stop_token_ids=(drawn[position],))
        exact = decode(session, prompt(200), EXACT, stop)
        assert ids(exact) == drawn[: drawn.index(drawn[position]) + 1]
        assert exact[-1].finish_reason == "stop"
    for limit in range(1, 12):
        exact = decode(session, prompt(200), EXACT, SamplingConfig(max_new_tokens=limit))
        assert ids(exact) == drawn[:limit]
        assert exact[-1].finish_reason == "length"
        assert session.context_tokens == session.cache.length_tokens == 200 + limit - 1


def test_it_fills_the_window_to_the_last_token(new_session, decode, prompt, lengths):
    sampling = SamplingConfig(max_new_tokens=100)
    dense = decode(new_session(), prompt(620), DENSE, sampling)
    exact = decode(new_session(), prompt(620), EXACT, sampling)
    assert ids(exact) == ids(dense)
    assert (exact[-1].finish_reason, exact[-1].context_tokens) == ("context", 640)


@pytest.mark.parametrize("taken", range(2, 11))
def test_a_broken_off_answer_leaves_no_trace(new_session, decode, prompt, never, lengths, taken):
    """Whether it is cancelled, or nobody asks for more; what follows is decoded densely, and with Quest."""
    cancellation, cancelled, abandoned, fresh = Cancellation(), new_session(), new_session(), new_session()
    given = []
    list(cancelled.prefill(prompt(200), never))
    for step in cancelled.decode(EXACT, SamplingConfig(max_new_tokens=30), cancellation):
        given.append(step.token_id)
        if len(given) == taken:
            cancellation.request()
    list(abandoned.prefill(prompt(200), never))
    stream = abandoned.decode(EXACT, SamplingConfig(max_new_tokens=30), never)
    assert [next(stream).token_id for _ in range(taken)] == given
    stream.close()
    question = prompt(200) + given[:-1] + prompt(5, seed=2)
    sampling = SamplingConfig(max_new_tokens=20)
    for quest in (DENSE, QuestConfig(token_budget=96)):
        expected = ids(decode(fresh, question, quest, sampling))
        assert ids(decode(cancelled, question, quest, sampling)) == expected
        assert ids(decode(abandoned, question, quest, sampling)) == expected


def test_pages_equal_those_of_dense_decoding(new_session, decode, prompt, lengths):
    """Keys, values and, once a token has been appended after the last round, summaries; all to the bit."""
    sessions = [new_session(), new_session()]
    for session, quest in zip(sessions, (DENSE, EXACT), strict=True):
        answer = ids(decode(session, prompt(200), quest, SamplingConfig(max_new_tokens=45)))
        list(session.prefill(prompt(200) + answer, Cancellation()))
    for layer in sessions[0].cache.pool.layers:
        dense, exact = (
            [tensor[session.cache.page_table.long()] for tensor in layer.tensors] for session in sessions
        )
        for tensor, other in zip(dense, exact, strict=True):
            filled = sessions[0].context_tokens - 16 * (len(tensor) - 1)
            last = (slice(None), slice(filled)) if tensor.shape[2] == 16 else (slice(None),)
            assert torch.equal(tensor[:-1], other[:-1])
            assert torch.equal(tensor[-1][last], other[-1][last])


def test_forks_in_the_middle_of_a_round(new_session, prompt, never, lengths):
    session = new_session()
    list(session.prefill(prompt(158), never))
    sampling = SamplingConfig(max_new_tokens=40)
    expected = ids(session.fork().decode(DENSE, sampling, never))
    drawn = []
    for step in session.decode(EXACT, sampling, never):
        drawn.append(step.token_id)
        fork = session.fork()
        with suppress(ValueError):  # without logits before the first step is finished
            next(fork.decode(DENSE, SamplingConfig(max_new_tokens=3), never))
        list(fork.prefill([*fork.tokens, 7], never))
        fork.close()
    assert drawn == expected


def test_a_full_pool_shortens_a_round(tiny_engine, prompt, lengths):
    """Two pages more than the prompt fills: drafts and verification end there, and the last tokens still come."""
    layout, layers = tiny_engine.pool.layout, tiny_engine.model_config.num_layers
    drawn = {}
    for attention in ("dense", "exact"):
        cache = SequenceCache(PagePool(layout, layers, 12, torch.device("cpu")), 640)
        logits = tiny_engine.decoder.prefill(torch.tensor(prompt(160)), cache)
        sampler = Sampler(SamplingConfig(max_new_tokens=60), tiny_engine.model_config.vocab_size, torch.device("cpu"))
        # Dense: nothing is ever drafted.
        quest = QuestConfig("quest" if attention == "exact" else "dense", token_budget=96)
        drafting = DraftAttention(tiny_engine.quest_method, quest)
        steps = SpeculativeSteps(tiny_engine.decoder, cache, drafting, sampler, 640)
        drawn[attention] = [steps.begin(logits)]
        with pytest.raises(PoolExhausted):
            while True:
                drawn[attention].append(steps.finish().token_id)
        assert cache.length_tokens == 192
    assert drawn["exact"] == drawn["dense"]


def test_the_drafts_of_a_round_read_what_the_first_selects(tiny_engine, prompt):
    """And the pages begun since: 158 tokens end in the tenth page, which the third draft leaves."""
    cache = SequenceCache(tiny_engine.pool, 640)
    tiny_engine.decoder.prefill(torch.tensor(prompt(158)), cache)
    attention = DraftAttention(tiny_engine.quest_method, QuestConfig(token_budget=96, dense_layers=1))
    assert attention.listed_pages(cache.view(1)) is None
    listed = []
    for token_id in range(5, 10):
        append_token(tiny_engine.decoder, cache, torch.tensor([token_id]), attention)
        page_ids, page_counts, _ = attention.listed_pages(cache.view(0))
        assert page_ids.shape[:2] == (3, 3)
        assert page_counts.tolist() == [6 if cache.length_tokens <= 160 else 7] * 3
        listed.append(page_ids[:, :, : page_counts[0]].clone())
    assert torch.equal(listed[0], listed[1])
    assert torch.equal(listed[4], torch.cat((listed[0], torch.full((3, 3, 1), 10)), dim=2))
    assert (listed[0][:, :, -1] == 9).all()
    attention.begin_round()
    assert attention.listed_pages(cache.view(1)) is None
    cache.truncate(0)


def test_bytes_of_a_round(new_session, decode, prompt, lengths):
    exact = decode(new_session(), prompt(200), EXACT, SamplingConfig(max_new_tokens=20))
    page_bytes = 16 * 2 * 8 * 4
    rounds = [step for step in exact[1:] if step.drafted]
    for step, (drafted, accepted) in zip(rounds, lengths[0].rounds, strict=False):
        pages = -(-(step.context_tokens + drafted) // 16)
        drafts = 4 * 3 * (drafted * 6 * page_bytes + pages * (8 + 4))
        assert step.kv_bytes_read == (4 * 3 * pages * page_bytes + drafts) // (accepted + 1)


def test_nothing_is_drafted_within_the_budget(new_session, decode, prompt, lengths):
    exact = decode(new_session(), prompt(60), EXACT, SamplingConfig(max_new_tokens=20))
    assert sum(step.drafted for step in exact) == 0
    assert all(step.kv_bytes_read == step.kv_bytes_dense for step in exact)
