"""Speculative decoding over static buffers gives dense decoding's tokens; on the CPU, where steps stand in for graphs.

Drafts run operator by operator here, and verifications as the CPU's whole step, which dense decoding runs as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from kernels.contract import PageBudget, SelectedPages
from quest_core.cache.paged_kv_cache import PagePool, PoolExhausted, SequenceCache
from quest_core.config import QuestConfig, SamplingConfig
from quest_core.decode import decode_graph, round_graphs, static_speculation
from quest_core.decode.decode_graph import read_shape, run_eagerly
from quest_core.decode.draft_length import FinishedRound, RoundCosts
from quest_core.decode.round_graphs import DraftShape, RoundGraphs
from quest_core.decode.sampling import NotANumberError, Sampler, SamplingKind
from quest_core.decode.static_speculation import StaticSpeculativeSteps, draft_length_for
from quest_core.engine import Cancellation
from quest_core.session import Session

DENSE = QuestConfig(attention="dense")
# Twelve of thirteen or more pages of 16: a random model's drafts are refused often.
EXACT = QuestConfig(attention="exact", token_budget=192)
GREEDY = SamplingConfig(max_new_tokens=60)
SAMPLED = {"temperature": 1.0, "top_p": 0.9, "seed": 5}


class FixedLength:
    """Drafts as many tokens in every round as can be, up to a number, whatever they cost; notes the rounds."""

    def __init__(self, drafts: int) -> None:
        self.drafts = drafts
        self.rounds: list[tuple[int, int]] = []

    def drafts_ahead(self, choices: Sequence[int]) -> int:
        return max((each for each in choices if each <= self.drafts), default=0)

    def finish(self, finished: FinishedRound) -> None:
        assert all(seconds > 0.0 for seconds in (*finished.draft_s, finished.verify_s))
        self.rounds.append((len(finished.draft_s), finished.accepted))


def warm_up(step):
    """As a capture does, run the step once beforehand."""
    step()
    return step


@pytest.fixture(autouse=True)
def short_tables(monkeypatch):
    """So that tables of several lengths occur in the tiny window of 40 pages."""
    monkeypatch.setattr(decode_graph, "MIN_TABLE_PAGES", 8)


@pytest.fixture(params=[1, 3, 7])
def lengths(request, monkeypatch) -> list[FixedLength]:
    """Every answer drafts so many tokens a round; the lengths of the answers since."""
    made: list[FixedLength] = []

    def make(costs: RoundCosts) -> FixedLength:
        made.append(FixedLength(request.param))
        return made[-1]

    monkeypatch.setattr(static_speculation, "DraftLength", make)
    return made


@pytest.fixture(params=[run_eagerly, warm_up])
def rounds(request, tiny_engine) -> RoundGraphs:
    return RoundGraphs(tiny_engine.decoder, tiny_engine.pool, request.param)


@pytest.fixture
def static_session(tiny_engine, new_session, rounds) -> Callable[[], Session]:
    """Makes sessions that draft and verify over static buffers."""

    def make() -> Session:
        variants = [replace(variant, rounds=rounds) for variant in tiny_engine.rope_variants]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tiny_engine, "rope_variants", variants)
            return new_session()

    return make


@pytest.fixture
def decode(never) -> Callable[..., list]:
    def run(session, token_ids: list[int], quest: QuestConfig, sampling: SamplingConfig) -> list:
        list(session.prefill(token_ids, never))
        return list(session.decode(quest, sampling, never))

    return run


def ids(steps) -> list[int]:
    return [step.token_id for step in steps]


@pytest.mark.parametrize("quest", [EXACT, QuestConfig("exact", 64, dense_layers=3), QuestConfig("exact", 240)], ids=str)
@pytest.mark.parametrize("length", [250, 287, 303])
def test_greedy_tokens_are_those_of_dense_decoding(
    new_session, static_session, decode, prompt, lengths, length, quest
):
    dense = decode(new_session(), prompt(length), DENSE, GREEDY)
    exact = decode(static_session(), prompt(length), quest, GREEDY)
    assert ids(exact) == ids(dense)
    assert [step.context_tokens for step in exact] == [step.context_tokens for step in dense]
    # Some of the drafts were accepted, so that this says something.
    drafted, accepted = (sum(getattr(step, name) for step in exact) for name in ("drafted", "accepted"))
    assert (drafted, accepted) == tuple(map(sum, zip(*lengths[0].rounds, strict=True)))
    assert 0 < accepted <= drafted


@pytest.mark.parametrize(
    "sampling",
    [SAMPLED, {**SAMPLED, "top_k": 20, "min_p": 0.05}, {**SAMPLED, "repetition_penalty": 1.3},
     {"repetition_penalty": 1.5}],
    ids=["top-p", "top-k min-p", "penalised", "greedy penalised"],
)  # fmt: skip
def test_sampled_tokens_are_those_of_dense_decoding(new_session, static_session, decode, prompt, lengths, sampling):
    config = SamplingConfig(max_new_tokens=60, **sampling)
    dense = decode(new_session(), prompt(200), DENSE, config)
    exact = decode(static_session(), prompt(200), EXACT, config)
    assert ids(exact) == ids(dense)
    assert sum(step.accepted for step in exact) > 0


def test_it_stops_where_dense_decoding_stops(new_session, static_session, decode, prompt, lengths):
    session = static_session()
    drawn = ids(decode(new_session(), prompt(200), DENSE, SamplingConfig(max_new_tokens=30)))
    for position in range(2, 12):
        stop = SamplingConfig(max_new_tokens=30, stop_token_ids=(drawn[position],))
        exact = decode(session, prompt(200), EXACT, stop)
        assert ids(exact) == drawn[: drawn.index(drawn[position]) + 1]
        assert exact[-1].finish_reason == "stop"
        assert session.tokens == prompt(200) + ids(exact)[:-1]
    for limit in range(1, 12):
        exact = decode(session, prompt(200), EXACT, SamplingConfig(max_new_tokens=limit))
        assert ids(exact) == drawn[:limit]
        assert exact[-1].finish_reason == "length"
        assert session.context_tokens == session.cache.length_tokens == 200 + limit - 1


def test_it_fills_the_window_to_the_last_token(new_session, static_session, decode, prompt, lengths):
    sampling = SamplingConfig(max_new_tokens=100)
    dense = decode(new_session(), prompt(620), DENSE, sampling)
    exact = decode(static_session(), prompt(620), EXACT, sampling)
    assert ids(exact) == ids(dense)
    assert (exact[-1].finish_reason, exact[-1].context_tokens) == ("context", 640)


@pytest.mark.parametrize("taken", range(2, 11))
def test_a_broken_off_answer_leaves_no_trace(
    new_session, static_session, decode, prompt, never, lengths, taken
):
    """Whether it is cancelled, or nobody asks for more; what follows is decoded densely, with Quest, and so again."""
    cancellation, cancelled, abandoned, fresh = Cancellation(), static_session(), static_session(), new_session()
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
    for quest, expected_quest in ((DENSE, DENSE), (QuestConfig(token_budget=96),) * 2, (EXACT, DENSE)):
        expected = ids(decode(fresh, question, expected_quest, sampling))
        assert ids(decode(cancelled, question, quest, sampling)) == expected
        assert ids(decode(abandoned, question, quest, sampling)) == expected


def test_pages_equal_those_of_dense_decoding(new_session, static_session, decode, prompt, lengths):
    """Keys, values and, once a token has been appended after the last round, summaries; all to the bit."""
    sessions = [new_session(), static_session()]
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


def test_forks_in_the_middle_of_a_round(static_session, new_session, prompt, never, lengths):
    session, dense = static_session(), new_session()
    sampling = SamplingConfig(max_new_tokens=40)
    for each in (session, dense):
        list(each.prefill(prompt(158), never))
    expected = ids(dense.decode(DENSE, sampling, never))
    drawn = []
    for step in session.decode(EXACT, sampling, never):
        drawn.append(step.token_id)
        fork = session.fork()
        with suppress(ValueError):  # without logits before the first step is finished
            next(fork.decode(DENSE, SamplingConfig(max_new_tokens=3), never))
        list(fork.prefill([*fork.tokens, 7], never))
        fork.close()
    assert drawn == expected


@pytest.mark.parametrize("sampling", [{}, SAMPLED, {**SAMPLED, "repetition_penalty": 1.3}], ids=str)
def test_answers_in_turns_do_not_disturb_each_other(static_session, new_session, prompt, never, lengths, sampling):
    """Forks that share a partly filled page, and a session of its own, take the buffers from one another."""
    config, answers = SamplingConfig(max_new_tokens=24, **sampling), []
    for make, quest in ((new_session, DENSE), (static_session, EXACT)):
        origin, other = make(), make()
        list(origin.prefill(prompt(167), never))
        list(other.prefill(prompt(201, seed=1), never))
        sessions = [origin.fork(), origin.fork(), other]
        settings = [quest, replace(quest, token_budget=160), quest]
        streams = [each.decode(own, config, never) for each, own in zip(sessions, settings, strict=True)]
        drawn: list[list[int]] = [[], [], []]
        while any(len(taken) < 24 for taken in drawn):
            for index, stream in enumerate(streams):
                drawn[index] += ids(step for _, step in zip(range(index + 1), stream, strict=False))
        answers.append(drawn)
    assert answers[0] == answers[1]


def test_a_full_pool_shortens_a_round(tiny_engine, prompt, lengths):
    """Two pages more than the prompt fills: rounds become single steps there, and the last tokens still come."""
    layout, layers = tiny_engine.pool.layout, tiny_engine.model_config.num_layers
    drawn = {}
    for attention in ("dense", "exact"):
        pool = PagePool(layout, layers, 12, torch.device("cpu"))
        cache, graphs = SequenceCache(pool, 640), RoundGraphs(tiny_engine.decoder, pool, warm_up)
        logits = tiny_engine.decoder.prefill(torch.tensor(prompt(160)), cache)
        sampler = Sampler(SamplingConfig(max_new_tokens=60), tiny_engine.model_config.vocab_size, torch.device("cpu"))
        quest = QuestConfig("exact", token_budget=64)
        length = draft_length_for(graphs, cache, quest) if attention == "exact" else FixedLength(0)
        steps = StaticSpeculativeSteps(graphs, tiny_engine.decoder, cache, quest, sampler, 640, length)
        drawn[attention] = [steps.begin(logits)]
        with pytest.raises(PoolExhausted):
            while True:
                drawn[attention].append(steps.finish().token_id)
        assert cache.length_tokens == 192
    assert drawn["exact"] == drawn["dense"]


def test_drafts_read_what_the_first_selects_and_the_pages_begun_since(tiny_engine, rounds, prompt):
    """158 tokens end in the tenth page, which the third draft leaves; what is drafted is what such steps draw."""
    decoder, kernels, scale = tiny_engine.decoder, tiny_engine.decoder.kernels, tiny_engine.model_config.softmax_scale
    static, eager = (SequenceCache(tiny_engine.pool, 640) for _ in range(2))
    for cache in (static, eager):
        decoder.prefill(torch.tensor(prompt(158)), cache)
        cache.reserve(6)
    quest, buffers = QuestConfig(token_budget=96, dense_layers=1), rounds.buffers
    buffers.page_table.copy_(static.whole_page_table)
    listed, selected, fed = [], {}, 5

    def attend(layer, query, cache, sequence):
        if layer == 0:
            return kernels.dense_decode_attention(query, cache, sequence, scale)
        if layer not in selected:
            attended, chosen = kernels.choose_and_attend(query, cache, sequence, PageBudget(5, 1, 1), scale)
            selected[layer] = chosen.page_ids
            return attended
        begun = torch.arange(10, (int(sequence.length_tokens) - 1) // 16 + 1, dtype=torch.int32).expand(3, -1)
        page_ids = torch.cat((selected[layer], begun), dim=1).contiguous()
        page_counts = torch.full((3,), page_ids.shape[1], dtype=torch.int32)
        return kernels.sparse_decode_attention(query, cache, sequence, SelectedPages(page_ids, page_counts), scale)

    buffers.token_ids[0], buffers.length_tokens[0] = fed, 159
    for number in range(5):
        shape = DraftShape(read_shape(quest, 16), 16, SamplingKind(True, False, False), selects=number == 0)
        if rounds.find(shape) is None:
            rounds.prepare(shape)
            # It may have run.
            buffers.length_tokens[0], buffers.drafts[0] = 159 + number, number
        rounds.find(shape)()
        logits = decoder.decode(torch.tensor([fed]), eager.pool, eager.view(1), attend)
        eager.advance(1)
        fed = int(logits.argmax())
        assert buffers.token_ids[: number + 2].tolist()[-1] == fed
        assert (int(buffers.drafts), int(buffers.length_tokens)) == (number + 1, 160 + number)
        listed.append(rounds._pages[read_shape(quest, 16)].page_counts.tolist())
    assert listed[1:] == [[5] * 3, [6] * 3, [6] * 3, [6] * 3]
    static.truncate(0)
    eager.truncate(0)


def test_a_round_stays_within_one_length_of_the_page_table(static_session, decode, prompt, rounds, lengths):
    """A verified row has the bits of a step over its own: tables are of 16 pages up to 256 tokens, then of 32."""
    decode(static_session(), prompt(245), EXACT, SamplingConfig(max_new_tokens=20))
    context_tokens, tables = 245, []
    for drafted, accepted in lengths[0].rounds:
        first, last = (-(-(context_tokens + new) // 16) for new in (1, 1 + drafted))
        tables.append({decode_graph.table_pages_for(pages, 40) for pages in (first, last)})
        context_tokens += 1 + accepted
    assert all(len(of_round) == 1 for of_round in tables)
    assert tables[0] == {16} and tables[-1] == {32}


def test_answers_share_prepared_steps(static_session, decode, rounds, prompt, lengths, monkeypatch):
    """Nothing is prepared for other parameters or other sessions; what rounds of a few settings need is kept."""
    prepared = []
    monkeypatch.setattr(rounds, "_prepare", lambda step: prepared.append(step._shape) or step)
    for temperature, top_p in ((1.0, 0.9), (0.7, 0.5)):
        sampling = SamplingConfig(max_new_tokens=30, temperature=temperature, top_p=top_p, seed=1)
        decode(static_session(), prompt(200), EXACT, sampling)
    assert len(prepared) == len(set(prepared)) <= 6
    for budget in range(48, 48 + 16 * 8, 16):
        decode(static_session(), prompt(200), QuestConfig("exact", budget), SamplingConfig(max_new_tokens=12))
    assert len(rounds._prepared) <= round_graphs.MAX_ROUND_GRAPHS
    assert len(rounds._pages) <= round_graphs.MAX_ROUND_GRAPHS


def test_logits_that_are_no_numbers_end_the_answer_by_name(tiny_engine, static_session, decode, prompt, lengths):
    session, expected = static_session(), decode(static_session(), prompt(150), EXACT, GREEDY)
    verify, drawn = tiny_engine.decoder.verify, []

    def verify_badly(*arguments):
        return verify(*arguments) + (float("nan") if len(drawn) > 10 else 0.0)

    list(session.prefill(prompt(150), Cancellation()))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(NotANumberError):
        patch.setattr(tiny_engine.decoder, "verify", verify_badly)
        for step in session.decode(EXACT, GREEDY, Cancellation()):
            drawn.append(step.token_id)
    assert drawn == ids(expected)[: len(drawn)] and 11 <= len(drawn) <= 18
    assert ids(decode(session, prompt(150), EXACT, GREEDY)) == ids(expected)


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [run_eagerly], indirect=True)
@pytest.mark.parametrize("lengths", [3], indirect=True)
def test_the_gpus_kernels_take_the_round_buffers(
    tiny_engine, new_session, static_session, decode, prompt, lengths, monkeypatch
):
    """In Triton's interpreter: tables longer than the sequence, lengths on the device alone; dense layers too."""
    triton = pytest.importorskip("triton")
    if not triton.knobs.runtime.interpret:
        pytest.skip("kernels are compiled where there is a GPU; test_on_gpu.py runs them there")
    import kernels.gpu

    # Those that read the cache; products would take minutes, and have tests of their own.
    attending = ("dense_decode_attention", "choose_and_attend", "sparse_decode_attention")
    names, called = ("rotate_and_append", *attending), set()

    def observed(name):
        def operator(*arguments):
            called.add(name)
            return getattr(kernels.gpu, name)(*arguments)

        return operator

    decoder, sampling = tiny_engine.decoder, SamplingConfig(max_new_tokens=9)
    dense = decode(new_session(), prompt(157), DENSE, sampling)
    session = static_session()
    list(session.prefill(prompt(157), Cancellation()))
    monkeypatch.setattr(
        decoder, "kernels", SimpleNamespace(**vars(decoder.kernels) | {name: observed(name) for name in names})
    )
    monkeypatch.setattr(decoder, "_whole_step", None)
    exact = list(session.decode(QuestConfig("exact", 144, dense_layers=1), sampling, Cancellation()))
    assert ids(exact) == ids(dense)
    assert called == set(names) and lengths[0].rounds[0][0] == 3


def test_a_round_has_no_more_rows_than_the_gpus_operators_take():
    checks = pytest.importorskip("kernels.gpu_tools.checks")
    assert round_graphs.ROW_COUNTS[0] == 1
    assert round_graphs.ROW_COUNTS[-1] <= checks.FEW_ROWS


@pytest.mark.parametrize("quest", [EXACT, QuestConfig("exact", 64, dense_layers=4)], ids=str)
def test_answers_whose_drafts_would_read_all_are_decoded_densely(
    rounds, tiny_engine, new_session, static_session, decode, prompt, lengths, quest
):
    """Also those that grow out of what drafts read: 160 tokens and 60 more, with a budget of 192."""
    session = static_session()
    exact = decode(session, prompt(160), quest, GREEDY)
    assert ids(exact) == ids(decode(new_session(), prompt(160), DENSE, GREEDY))
    assert lengths == []
    if quest is EXACT:
        # One page more than drafts read.
        decode(session, prompt(192), quest, GREEDY)
        assert lengths[0].rounds


def test_answers_that_drafts_cannot_speed_up_are_decoded_densely(rounds, tiny_engine, static_session, never, prompt):
    """Until one of several measures anew; an answer's tokens are the same."""
    session = static_session()
    list(session.prefill(prompt(300), never))
    dense = ids(session.fork().decode(DENSE, GREEDY, never))
    assert draft_length_for(rounds, session.cache, EXACT) is not None
    costs = rounds.costs_for_answer(read_shape(replace(EXACT, attention="quest"), 16), 32)
    for draft_s, verify_s in (((), 1.0), ((0.9,), 1.5), ((0.9, 0.9, 0.9), 4.0)):
        costs.add(draft_s, verify_s)
    costs.trials = 2
    begun = [draft_length_for(rounds, session.cache, EXACT) for _ in range(2 * round_graphs.MEASURED_AGAIN)]
    # The one that measures anew knows no costs, as do those after it.
    assert [length is None for length in begun[: round_graphs.MEASURED_AGAIN]] == [
        *[True] * (round_graphs.MEASURED_AGAIN - 1),
        False,
    ]
    assert all(length is not None for length in begun[round_graphs.MEASURED_AGAIN :])
    assert ids(session.fork().decode(EXACT, GREEDY, never)) == dense
    session.close()
