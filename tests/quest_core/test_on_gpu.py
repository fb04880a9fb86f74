"""The engine on a CUDA GPU against transformers and against itself on the CPU."""

from __future__ import annotations

import copy
import gc
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from kernels.contract import SequenceView
from quest_core.cache.paged_kv_cache import SequenceCache
from quest_core.config import EngineConfig, QuestConfig, SamplingConfig
from quest_core.decode import decode_graph
from quest_core.decode.decode_graph import GraphCapture
from quest_core.decode.draft_length import DraftLength
from quest_core.decode.sampling import NotANumberError
from quest_core.engine import Engine
from quest_core.prefill import prefill_attention
from quest_core.prefill.prefill_attention import BlockwiseAttention, GatheredAttention

pytestmark = pytest.mark.gpu
SAMPLING = SamplingConfig(max_new_tokens=24)


@pytest.fixture
def on_gpu(any_family):
    """Transformers' model, the CPU engine, and the same model on the GPU in float32."""
    reference, cpu_engine = any_family
    engine = Engine.load(str(cpu_engine.model_folder), EngineConfig(device="cuda", dtype="float32"))
    yield reference, cpu_engine, engine
    engine.close()


@pytest.mark.parametrize("length", [1, 16, 250])
def test_dense_greedy_equals_transformers(on_gpu, generate, prompt, length):
    reference, _, engine = on_gpu
    ids = torch.tensor([prompt(length)])
    expected = reference.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=0
    )[0, length:].tolist()
    assert generate(engine.new_session(), prompt(length), QuestConfig(attention="dense"), SAMPLING) == expected


@pytest.mark.parametrize("budget", [64, 96, 640])
def test_quest_equals_the_cpu_engine(on_gpu, never, prompt, budget):
    """The same tokens from the same pages, read by other kernels."""
    _, cpu_engine, engine = on_gpu
    steps = []
    for each in (cpu_engine, engine):
        session = each.new_session()
        list(session.prefill(prompt(250), never))
        steps.append(list(session.decode(QuestConfig(token_budget=budget), SAMPLING, never)))
        session.close()
    assert [step.token_id for step in steps[0]] == [step.token_id for step in steps[1]]
    for left, right in zip(*(part[1:] for part in steps), strict=True):
        assert (left.reads.page_reads == right.reads.page_reads).all()


@pytest.mark.parametrize("eager", [False, True], ids=["graph", "eager"])
@pytest.mark.parametrize("selection", ["mean", "quest"])
def test_every_selection_reads_what_it_reads_on_the_cpu(tiny_folder, never, prompt, selection, eager):
    """From summaries that prefill, steps and graphs keep."""
    steps = []
    for device in ("cpu", "cuda"):
        config = EngineConfig(device=device, dtype="float32", selection=selection, eager=eager)
        engine = Engine.load(str(tiny_folder), config)
        session = engine.new_session()
        list(session.prefill(prompt(250), never))
        steps.append(list(session.decode(QuestConfig(token_budget=64), SAMPLING, never)))
        engine.close()
    assert [step.token_id for step in steps[0]] == [step.token_id for step in steps[1]]
    for left, right in zip(*(part[1:] for part in steps), strict=True):
        assert (left.reads.page_reads == right.reads.page_reads).all()


def test_bfloat16_is_as_close_as_transformers(any_family, never, prompt):
    """Rounding grows differently in each random model: the measure is what transformers' own bfloat16 run loses."""
    reference, cpu_engine = any_family
    engine = Engine.load(str(cpu_engine.model_folder), EngineConfig(device="cuda", dtype="bfloat16"))
    session = engine.new_session()
    list(session.prefill(prompt(250), never))
    rounded = copy.deepcopy(reference).to("cuda", torch.bfloat16)
    ids = torch.tensor([prompt(250)])
    with torch.inference_mode():
        expected = reference(ids).logits[0, -1]
        theirs = rounded(ids.cuda()).logits[0, -1].float().cpu()
    assert (session.logits.cpu() - expected).norm() <= 1.5 * (theirs - expected).norm()
    engine.close()


@pytest.fixture
def in_bfloat16(any_family, monkeypatch):
    """Transformers' model, and an engine on the GPU that attends by blocks of 128 tokens, which cuDNN may take."""
    monkeypatch.setattr(prefill_attention, "CUDNN_TOKENS", 128)
    reference, cpu_engine = any_family
    engine = Engine.load(str(cpu_engine.model_folder), EngineConfig(device="cuda", dtype="bfloat16"))
    if not isinstance(engine.decoder._prefill_attention, BlockwiseAttention):
        pytest.skip("this GPU gathers for one call")
    engine.decoder._prefill_attention._block_tokens = 128
    yield reference, engine
    engine.close()


def prefilled_error(reference, session, token_ids, never):
    """How far the logits after `token_ids` are from Transformers' in float32, and the session's own."""
    list(session.prefill(token_ids, never))
    with torch.inference_mode():
        expected = reference(torch.tensor([token_ids])).logits[0, -1]
    return (session.logits.cpu() - expected).norm()


@pytest.mark.parametrize("chunk", [1000, 128, 96, 33])
def test_prefill_by_blocks_is_as_close_as_in_one_call(in_bfloat16, never, prompt, chunk):
    """Rounding differs with the order of the sums: the measure is what one call loses."""
    reference, engine = in_bfloat16
    session, other = engine.new_session(), engine.new_session()
    session.prefill_chunk_tokens = chunk
    error = prefilled_error(reference, session, prompt(512), never)
    engine.decoder._prefill_attention = GatheredAttention(engine.model_config.softmax_scale)
    assert error <= 1.5 * prefilled_error(reference, other, prompt(512), never)


def test_prefill_by_blocks_on_a_fork(in_bfloat16, never, prompt):
    reference, engine = in_bfloat16
    session, fresh = engine.new_session(), engine.new_session()
    list(session.prefill(prompt(300), never))
    fork = session.fork()
    longer = prompt(300) + prompt(150, seed=2)
    errors = [prefilled_error(reference, each, longer, never) for each in (fork, fresh)]
    assert errors[0] <= 1.5 * errors[1]


def test_prefill_takes_no_more_memory_for_a_longer_context(tiny_folder, never, prompt):
    """Beside the page pool: one chunk's activations and one block of the cache."""
    engine = Engine.load(str(tiny_folder), EngineConfig(device="cuda", dtype="bfloat16", prefill_chunk_tokens=64))
    if not isinstance(engine.decoder._prefill_attention, BlockwiseAttention):
        pytest.skip("this GPU gathers for one call")
    engine.decoder._prefill_attention._block_tokens = 64
    session = engine.new_session()
    list(session.prefill(prompt(128), never))
    peaks = []
    for length in (192, 576):
        session.truncate(64)
        torch.cuda.reset_peak_memory_stats()
        list(session.prefill(prompt(128)[:64] + prompt(length - 64, seed=3), never))
        peaks.append(torch.cuda.max_memory_allocated())
    engine.close()
    assert peaks[1] <= peaks[0]


def test_forks_and_seeds_on_the_gpu(on_gpu, never, prompt):
    _, _, engine = on_gpu
    session = engine.new_session()
    list(session.prefill(prompt(167), never))
    sampling = SamplingConfig(temperature=1.0, seed=5, max_new_tokens=30)
    streams = [session.fork().decode(QuestConfig(token_budget=96), sampling, never) for _ in range(2)]
    pairs = [(left.token_id, right.token_id) for left, right in zip(*streams, strict=True)]
    assert all(left == right for left, right in pairs)
    assert len(pairs) == 30


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("length", [1, 9, 250])
def test_quantised_weights_compute_what_they_stand_for(
    any_family, write_rounded, generate, prompt, tmp_path, length, bits
):
    """Against plain weights that were rounded alike, on the same device: its scales have fewer bits than the CPU's."""
    _, cpu_engine = any_family
    folder = write_rounded(cpu_engine.model_folder, tmp_path / "rounded", bits, "cuda")
    logits = []
    for model, weight_bits in ((cpu_engine.model_folder, bits), (folder, 16)):
        config = EngineConfig(device="cuda", dtype="float32", weight_bits=weight_bits)
        engine = Engine.load(str(model), config)
        session = engine.new_session()
        generate(session, prompt(length), QuestConfig(attention="dense"), SamplingConfig(max_new_tokens=1))
        logits.append(session.logits.cpu())
        engine.close()
    assert (logits[1] - logits[0]).norm() <= 2e-3 * logits[0].norm()


@pytest.fixture(params=[("bfloat16", 16), ("float32", 16), ("bfloat16", 8)], ids=str)
def graph_and_eager(request, tiny_folder, monkeypatch):
    """Engines whose steps are graphs, and launched one by one; a context grows through several tables' lengths."""
    monkeypatch.setattr(decode_graph, "MIN_TABLE_PAGES", 8)
    dtype, kv_bits = request.param
    engines = [
        Engine.load(
            str(tiny_folder), EngineConfig(device="cuda", dtype=dtype, page_size=16, kv_bits=kv_bits, eager=eager)
        )
        for eager in (False, True)
    ]
    yield engines
    for engine in engines:
        engine.close()


QUEST = QuestConfig(token_budget=96, dense_layers=1)
SAMPLINGS = {
    "greedy": SamplingConfig(max_new_tokens=60),
    "penalty": SamplingConfig(max_new_tokens=60, repetition_penalty=1.5),
    "sampled": SamplingConfig(max_new_tokens=60, temperature=1.2, min_p=0.01, seed=3),
    "top-p": SamplingConfig(max_new_tokens=60, temperature=1.5, top_p=0.9, top_k=50, repetition_penalty=1.2, seed=4),
}


def assert_same_steps(left, right):
    assert [step.token_id for step in left] == [step.token_id for step in right]
    for ours, theirs in zip(left, right, strict=True):
        assert ours.finish_reason == theirs.finish_reason
        assert (ours.context_tokens, ours.kv_bytes_read) == (theirs.context_tokens, theirs.kv_bytes_read)
        assert (ours.reads is None) == (theirs.reads is None)
        if ours.reads is not None:
            assert np.array_equal(ours.reads.page_reads, theirs.reads.page_reads)
            assert ours.reads.missed_mass == pytest.approx(theirs.reads.missed_mass)


@pytest.mark.parametrize("quest", [QUEST, QuestConfig(attention="dense")], ids=["quest", "dense"])
@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
@pytest.mark.parametrize("length", [1, 95, 250])
def test_a_graph_draws_what_eager_steps_draw(graph_and_eager, never, prompt, quest, sampling, length):
    answers = []
    for engine in graph_and_eager:
        session = engine.new_session()
        list(session.prefill(prompt(length), never))
        answers.append(list(session.decode(quest, sampling, never)))
        session.close()
    assert_same_steps(*answers)


@pytest.mark.parametrize("look_ahead", [True, False])
def test_forks_in_turns_and_changing_budgets(graph_and_eager, never, prompt, look_ahead):
    answers = []
    for engine in graph_and_eager:
        origin = engine.new_session()
        list(origin.prefill(prompt(167), never))
        steps: list[list] = [[], []]
        for budget in (96, 64, 320):
            forks = origin.fork(), origin.fork()
            settings = QuestConfig(token_budget=budget), QuestConfig(attention="dense")
            streams = [
                fork.decode(quest, SAMPLINGS["top-p"], never, look_ahead=look_ahead)
                for fork, quest in zip(forks, settings, strict=True)
            ]
            for _ in range(60):
                for index, stream in enumerate(streams):
                    steps[index] += itertools.islice(stream, index + 1)
            for fork in forks:
                fork.close()
        answers.append(steps)
    for ours, theirs in zip(*answers, strict=True):
        assert len(ours) == 180
        assert_same_steps(ours, theirs)


def test_a_stop_token_and_what_follows(graph_and_eager, never, prompt):
    """A conversation goes on after a step too many, on a page that the step has written to."""
    engine = graph_and_eager[0]
    session = engine.new_session()
    list(session.prefill(prompt(150), never))
    drawn = [step.token_id for step in session.fork().decode(QUEST, SAMPLINGS["greedy"], never)]
    stopping = SamplingConfig(max_new_tokens=60, stop_token_ids=(drawn[7],))
    steps = list(session.decode(QUEST, stopping, never))
    assert session.tokens == prompt(150) + drawn[: steps[-1].step]
    follow_up = session.tokens + prompt(40, seed=2)
    list(session.prefill(follow_up, never))
    other = engine.new_session()
    list(other.prefill(prompt(150), never))
    list(other.decode(QUEST, SamplingConfig(max_new_tokens=len(steps)), never))
    list(other.prefill(follow_up, never))
    assert_same_steps(*(list(each.decode(QUEST, SAMPLINGS["greedy"], never)) for each in (session, other)))


@pytest.mark.parametrize("look_ahead", [True, False])
@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
def test_logits_that_are_no_numbers_end_the_answer_by_name(graph_and_eager, never, prompt, sampling, look_ahead):
    """A graph reads its weights where they lie: once they are NaN, so is every later step; the one ahead feeds it."""
    for engine in graph_and_eager:
        session = engine.new_session()
        list(session.prefill(prompt(150), never))
        weight = engine.weights.final_norm
        kept, drawn = weight.clone(), []
        with pytest.raises(NotANumberError, match="nan"):
            for step in session.decode(QUEST, sampling, never, look_ahead=look_ahead):
                drawn.append(step.token_id)
                if step.step == 5:
                    with torch.inference_mode():
                        weight.fill_(float("nan"))
        assert 6 <= len(drawn) <= 8
        torch.cuda.synchronize()  # no index out of bounds, which would have ended the device's context
        with torch.inference_mode():
            weight.copy_(kept)
        fresh = engine.new_session()
        list(fresh.prefill(prompt(150), never))
        again = list(fresh.decode(QUEST, sampling, never, look_ahead=look_ahead))
        assert [step.token_id for step in again][: len(drawn)] == drawn


def test_graphs_are_captured_for_shapes_and_not_for_requests(graph_and_eager, never, prompt):
    engine = graph_and_eager[0]
    for seed, temperature in enumerate((0.5, 0.9, 1.3)):
        session = engine.new_session()
        list(session.prefill(prompt(100, seed=seed), never))
        sampling = SamplingConfig(max_new_tokens=8, temperature=temperature, top_p=0.9, seed=seed)
        list(session.decode(QUEST, sampling, never))
    assert len(engine.rope_variants[-1].graphs._prepared) == 1


@pytest.mark.parametrize("length", [3, 62, 158, 509])
@pytest.mark.parametrize("rows", [2, 3, 4, 8])
def test_verified_rows_get_the_bits_of_dense_steps(graph_and_eager, prompt, length, rows):
    """And leave the keys and values of these; over a page table longer than the sequence, as graphs have it."""
    engine = graph_and_eager[0]
    decoder, drafts = engine.decoder, prompt(rows, seed=3)
    together, alone = (SequenceCache(engine.pool, 640) for _ in range(2))
    for cache in (together, alone):
        decoder.prefill(torch.tensor(prompt(length), device="cuda"), cache)
        cache.reserve(rows)

    def dense(layer, query, cache, sequence):
        return decoder.kernels.dense_decode_attention(query, cache, sequence, decoder.config.softmax_scale)

    def view(cache, length_tokens):
        return SequenceView(cache.whole_page_table, torch.tensor([length_tokens], dtype=torch.int32, device="cuda"))

    logits = decoder.verify(torch.tensor(drafts, device="cuda"), engine.pool, view(together, length + rows))
    for row, token_id in enumerate(drafts):
        fed = torch.tensor([token_id], device="cuda")
        assert torch.equal(logits[row], decoder.decode(fed, engine.pool, view(alone, length + 1 + row), dense))
    for layer in engine.pool.layers:
        for pages in layer.tensors[:2]:
            ours, theirs = (
                pages[cache.page_table.long()].transpose(1, 2).flatten(0, 1)[: length + rows].float()
                for cache in (together, alone)
            )
            assert torch.equal(ours, theirs)
    for cache in (together, alone):
        cache.truncate(0)


@pytest.fixture(params=[("bfloat16", False), ("bfloat16", True), ("float32", False)], ids=["graph", "eager", "float32"])
def speculating(request, tiny_folder, monkeypatch):
    """An engine whose preset Exact drafts and verifies, seven drafts a round as long as there is room for them."""
    monkeypatch.setattr(decode_graph, "MIN_TABLE_PAGES", 8)
    monkeypatch.setattr(DraftLength, "drafts_ahead", lambda length, choices: max(choices, default=0))
    dtype, eager = request.param
    config = EngineConfig(device="cuda", dtype=dtype, page_size=16, eager=eager)
    engine = Engine.load(str(tiny_folder), config)
    yield engine
    engine.close()


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
@pytest.mark.parametrize("length", [95, 250])
def test_exact_draws_what_dense_steps_draw(speculating, never, prompt, sampling, length):
    """Verified by rounds of graphs; two answers in turns, which take the buffers from one another."""
    origin = speculating.new_session()
    list(origin.prefill(prompt(length), never))
    expected = [step.token_id for step in origin.fork().decode(QuestConfig(attention="dense"), sampling, never)]
    for quest in (QuestConfig("exact", 80), QuestConfig("exact", 64, dense_layers=1)):
        streams = [origin.fork().decode(quest, sampling, never) for _ in range(2)]
        steps = list(zip(*streams, strict=True))
        for answer in zip(*steps, strict=True):
            assert [step.token_id for step in answer] == expected
            assert sum(step.drafted for step in answer) > 0


def test_garbage_does_not_break_off_a_capture():
    """Graphs of an engine that is no more are collected at any time, but not in the middle of another's capture."""
    capture, numbers = GraphCapture(torch.device("cuda")), torch.zeros(8, device="cuda")
    cycles = [[capture(lambda: numbers.add_(1))] for _ in range(2)]
    for cycle in cycles:
        cycle.append(cycle)
    del cycle

    def step():
        cycles.pop()
        objects = [[] for _ in range(1000)]  # an allocation beyond the threshold collects
        numbers.add_(len(objects))

    thresholds = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        replay = capture(step)
    finally:
        gc.set_threshold(*thresholds)
    before = numbers.clone()
    replay()
    assert (numbers == before + 1000).all()


@pytest.mark.parametrize("eager", [False, True])
def test_a_stretched_window_equals_the_cpu_engine(tiny_folder, generate, prompt, eager):
    """Graphs read the tables of their own variant, before and after a conversation has outgrown one."""
    config = EngineConfig(device="cpu", dtype="float32", page_size=16, context_tokens=1600)
    engines = [Engine.load(str(tiny_folder), replace(config, device=device, eager=eager)) for device in ("cpu", "cuda")]
    answers = []
    for engine in engines:
        session = engine.new_session()
        answers.append(
            [
                generate(session, prompt(1500)[:length], QuestConfig(token_budget=budget), SAMPLING)
                for length in (300, 700, 1500, 300)
                for budget in (96, 1600)
            ]
        )
        engine.close()
    assert answers[0] == answers[1]
