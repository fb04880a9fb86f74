"""Steps over static buffers against eager ones; on the CPU, where the step itself stands in for its graph."""

from __future__ import annotations

import gc
import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from quest_core.cache.cache_layout import dense_bytes
from quest_core.cache.paged_kv_cache import PoolExhausted
from quest_core.config import QuestConfig, SamplingConfig
from quest_core.decode import decode_graph
from quest_core.decode.answer_steps import StaticSteps
from quest_core.decode.decode_graph import StepGraphs, garbage_kept, read_shape, run_eagerly, table_pages_for
from quest_core.decode.read_costs import ChoosingCosts
from quest_core.decode.sampling import NotANumberError
from quest_core.engine import Cancellation
from quest_core.session import Session

DENSE = QuestConfig(attention="dense")
QUEST = QuestConfig(token_budget=96, dense_layers=2)
GREEDY = SamplingConfig(max_new_tokens=24)
PENALTY = SamplingConfig(max_new_tokens=24, repetition_penalty=1.7)
SAMPLED = SamplingConfig(max_new_tokens=24, temperature=1.2, seed=3)
MIN_P = SamplingConfig(max_new_tokens=24, temperature=1.2, min_p=0.02, repetition_penalty=1.3, seed=4)
TOP_P = SamplingConfig(max_new_tokens=24, temperature=1.5, top_p=0.9, top_k=40, seed=5)


def warm_up(step):
    """As a capture does, run the step once beforehand."""
    step()
    return step


@pytest.fixture(autouse=True)
def short_tables(monkeypatch):
    """So that tables of several lengths occur in the tiny window of 40 pages."""
    monkeypatch.setattr(decode_graph, "MIN_TABLE_PAGES", 8)


@pytest.fixture(params=[run_eagerly, warm_up])
def graphs(request, tiny_engine) -> StepGraphs:
    return StepGraphs(tiny_engine.decoder, tiny_engine.pool, request.param)


@pytest.fixture
def static_session(tiny_engine, new_session, graphs):
    """Makes sessions whose steps run over static buffers."""

    def make() -> Session:
        graphed = [replace(variant, graphs=graphs) for variant in tiny_engine.rope_variants]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tiny_engine, "rope_variants", graphed)
            return new_session()

    return make


def assert_same_steps(left, right):
    assert len(left) == len(right)
    for ours, theirs in zip(left, right, strict=True):
        for name in ("step", "token_id", "context_tokens", "kv_bytes_dense", "finish_reason"):
            assert getattr(ours, name) == getattr(theirs, name), name
        assert (ours.reads is None) == (theirs.reads is None)
        if ours.reads is not None:
            assert np.array_equal(ours.reads.page_reads, theirs.reads.page_reads)
            assert ours.reads.always_read_pages == theirs.reads.always_read_pages
            assert ours.reads.missed_mass == pytest.approx(theirs.reads.missed_mass, abs=1e-5)


@pytest.mark.parametrize(
    ("quest", "sampling", "length"),
    [
        (QUEST, GREEDY, 1),
        (DENSE, GREEDY, 95),
        (QUEST, GREEDY, 250),
        (DENSE, PENALTY, 250),
        (QUEST, SAMPLED, 95),
        (DENSE, MIN_P, 1),
        (QUEST, TOP_P, 250),
    ],
)
def test_static_steps_equal_eager_ones(new_session, static_session, never, prompt, quest, sampling, length):
    steps, logits = [], []
    for session in (new_session(), static_session()):
        list(session.prefill(prompt(length), never))
        steps.append(list(session.decode(quest, sampling, never)))
        logits.append(session.logits)
        assert session.context_tokens == session.cache.length_tokens == length + 23
    assert_same_steps(*steps)
    assert np.allclose(*logits, atol=1e-4)


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
def test_static_steps_go_over_to_quest_where_eager_ones_do(
    tiny_engine, new_session, static_session, never, prompt, sampling, monkeypatch
):
    """With a step launched ahead, which is Quest's while the one before is dense."""
    method = tiny_engine.quest_method
    monkeypatch.setattr(method, "costs", ChoosingCosts(dense_bytes(method.layout, 5), summary_factor=0.0))
    steps, auto = [], replace(QUEST, attention="auto")
    for session in (new_session(), static_session()):
        list(session.prefill(prompt(165), never))
        assert session.reads_all(auto) and session.reads_all(DENSE) and not session.reads_all(QUEST)
        steps.append(list(session.decode(auto, sampling, never)))
        assert not session.reads_all(auto)
    assert_same_steps(*steps)
    # Eleven pages are read whole, from 177 tokens on six of twelve.
    chose = [step.reads.missed_mass is not None for step in steps[1][1:]]
    assert chose == [step.context_tokens > 176 for step in steps[1][1:]]
    assert [step.kv_bytes_read < step.kv_bytes_dense for step in steps[1][1:]] == chose


def test_beyond_the_budget_bytes_are_the_same_too(new_session, static_session, never, prompt):
    """Within it static steps score pages that eager ones need not."""
    steps = []
    for session in (new_session(), static_session()):
        list(session.prefill(prompt(250), never))
        steps.append([step.kv_bytes_read for step in session.decode(QUEST, GREEDY, never)])
    assert steps[0] == steps[1]


@pytest.mark.parametrize(
    ("sampling", "look_ahead"), [(GREEDY, True), (PENALTY, False), (MIN_P, True), (TOP_P, False)]
)
def test_answers_in_turns_do_not_disturb_each_other(static_session, new_session, never, prompt, sampling, look_ahead):
    """Forks that share a partly filled page, and a session of its own, one, two and three steps at a time."""
    settings = [(QUEST, 0), (DENSE, 0), (QuestConfig(token_budget=160), 1)]
    answers = []
    for make in (new_session, static_session):
        origin, other = make(), make()
        list(origin.prefill(prompt(167), never))
        list(other.prefill(prompt(201, seed=1), never))
        sessions = [origin.fork(), origin.fork(), other]
        streams = [
            session.decode(quest, sampling, never, look_ahead=look_ahead)
            for session, (quest, _) in zip(sessions, settings, strict=True)
        ]
        steps: list[list] = [[], [], []]
        while any(len(taken) < 24 for taken in steps):
            for index, stream in enumerate(streams):
                steps[index] += itertools.islice(stream, index + 1)
        answers.append(steps)
    for ours, theirs in zip(*answers, strict=True):
        assert_same_steps(ours, theirs)


def test_the_budget_may_change_between_answers(static_session, new_session, never, prompt):
    budgets = (64, 160, 640, 64)
    answers = []
    for make in (new_session, static_session):
        session = make()
        list(session.prefill(prompt(200), never))
        answers.append([])
        for budget in budgets:
            answers[-1] += session.decode(QuestConfig(token_budget=budget), GREEDY, never)
            list(session.prefill(session.tokens + [5, 6, 7], never))
    assert_same_steps(*answers)


@pytest.mark.parametrize("length", [155, 156, 159, 160])
def test_a_step_after_a_stop_token_leaves_no_trace(
    tiny_engine, static_session, generate, new_session, never, prompt, length
):
    free_pages = tiny_engine.memory()["free_pages"]
    expected = generate(new_session(), prompt(length), QUEST, SamplingConfig(max_new_tokens=8))
    session = static_session()
    list(session.prefill(prompt(length), never))
    stopping = SamplingConfig(max_new_tokens=8, stop_token_ids=(expected[4],))
    steps = list(session.decode(QUEST, stopping, never))
    drawn = steps[-1].step
    assert steps[-1].finish_reason == "stop" and drawn <= 4
    assert session.tokens == prompt(length) + expected[:drawn]
    # The logits are those that gave the stop token, and a fork finds nothing of the step too many.
    assert int(session.logits.argmax()) == expected[drawn]
    for continued in (session.fork(), session):
        tokens = [step.token_id for step in continued.decode(QUEST, SamplingConfig(max_new_tokens=4), never)]
        again = new_session()
        again_tokens = generate(again, prompt(length), QUEST, SamplingConfig(max_new_tokens=drawn + 1))
        again_tokens += [step.token_id for step in again.decode(QUEST, SamplingConfig(max_new_tokens=4), never)]
        assert tokens == again_tokens[-4:]
        again.close()
        continued.close()
    for each in tiny_engine.sessions:
        each.close()
    assert tiny_engine.memory()["free_pages"] == free_pages


def test_cancellation_and_abandoned_answers_leave_no_trace(static_session, new_session, generate, prompt):
    expected = generate(new_session(), prompt(150), QUEST, SamplingConfig(max_new_tokens=12))
    session, cancellation = static_session(), Cancellation()
    list(session.prefill(prompt(150), cancellation))
    drawn = []
    for step in session.decode(QUEST, SamplingConfig(max_new_tokens=50), cancellation):
        drawn.append(step.token_id)
        if step.step == 4:
            cancellation.request()
    assert drawn == expected[:5]
    assert session.tokens == prompt(150) + expected[:4]
    stream = session.decode(QUEST, SamplingConfig(max_new_tokens=50), Cancellation())
    assert [next(stream).token_id for _ in range(3)] == expected[4:7]  # the fifth is drawn again from its logits
    assert generate(session, prompt(150), QUEST, SamplingConfig(max_new_tokens=12)) == expected


def test_the_end_of_the_window(static_session, never, prompt):
    session = static_session()
    list(session.prefill(prompt(630), never))
    steps = list(session.decode(QUEST, SamplingConfig(max_new_tokens=100), never))
    assert (len(steps), steps[-1].finish_reason, steps[-1].context_tokens) == (11, "context", 640)


def test_the_token_at_hand_counts_when_no_page_is_left_for_the_next(tiny_engine, static_session, never, prompt):
    session = static_session()
    list(session.prefill(prompt(159), never))
    pool = tiny_engine.pool
    taken = [pool.allocate() for _ in range(pool.free_pages)]
    stream = session.decode(DENSE, SamplingConfig(max_new_tokens=8), never)
    assert [next(stream).context_tokens for _ in range(2)] == [159, 160]
    with pytest.raises(PoolExhausted):
        next(stream)
    assert len(session.tokens) == session.cache.length_tokens == 160
    for page in taken:
        pool.release(page)
    assert next(session.decode(DENSE, SamplingConfig(), never)).context_tokens == 160


@pytest.mark.parametrize(
    ("quest", "value", "look_ahead"), [(QUEST, float("nan"), True), (DENSE, float("-inf"), False)]
)
def test_logits_that_are_no_numbers_end_the_answer_by_name(
    tiny_engine, new_session, static_session, generate, never, prompt, monkeypatch, quest, value, look_ahead
):
    """Static and eager steps alike, after the same token; what was there before them stays."""
    expected = generate(new_session(), prompt(150), quest, GREEDY)
    decode, drawn = tiny_engine.decoder.decode, []

    def decode_badly(*arguments):
        return decode(*arguments) + (value if len(drawn) > 3 else 0.0)

    for session in (new_session(), static_session()):
        drawn.clear()
        list(session.prefill(prompt(150), never))
        with monkeypatch.context() as patch, pytest.raises(NotANumberError):
            patch.setattr(tiny_engine.decoder, "decode", decode_badly)
            for step in session.decode(quest, GREEDY, never, look_ahead=look_ahead):
                drawn.append(step.token_id)
        assert drawn == expected[: len(drawn)] and 4 <= len(drawn) <= 5
        assert session.tokens == prompt(150) + drawn[: len(session.tokens) - 150]
        assert generate(session, prompt(150), quest, GREEDY) == expected


def test_logits_of_the_prompt_that_are_no_numbers_are_named(new_session, static_session, never, prompt):
    for session in (new_session(), static_session()):
        list(session.prefill(prompt(150), never))
        session.adopt_cache(session.tokens, session.logits * float("nan"))
        with pytest.raises(NotANumberError):
            next(session.decode(QUEST, GREEDY, never))
        with pytest.raises(NotANumberError):
            next(session.score([5], QUEST, never))


def test_the_trace_may_be_left_out(static_session, never, prompt):
    steps = []
    for trace_reads in (True, False):
        session = static_session()
        list(session.prefill(prompt(200), never))
        steps.append(list(session.decode(QUEST, GREEDY, never, trace_reads)))
    assert [step.token_id for step in steps[0]] == [step.token_id for step in steps[1]]
    assert steps[0][-1].kv_bytes_read > 0 == steps[1][-1].kv_bytes_read
    assert steps[1][-1].reads is None


def test_requests_share_prepared_steps(static_session, generate, graphs, prompt, monkeypatch):
    """Nothing is prepared for other parameters, other sessions, or budgets that are the same in pages."""
    prepared = []
    monkeypatch.setattr(graphs, "_prepare", lambda step: prepared.append(step.shape) or step)
    for budget, temperature, top_p in ((96, 1.0, 0.9), (100, 0.7, 0.5), (96, 1.3, 0.8)):
        sampling = SamplingConfig(max_new_tokens=4, temperature=temperature, top_p=top_p)
        generate(static_session(), prompt(100), QuestConfig(token_budget=budget), sampling)
        generate(static_session(), prompt(100), QuestConfig("dense", token_budget=budget), sampling)
    assert len(prepared) == len(set(prepared)) == 2
    for budget in range(48, 48 + 16 * 12, 16):
        generate(static_session(), prompt(100), QuestConfig(token_budget=budget), SamplingConfig(max_new_tokens=2))
    assert len(graphs._prepared) == decode_graph.MAX_GRAPHS


def test_another_steps_buffers_are_taken_only_when_needed(static_session, generate, prompt, monkeypatch):
    taken = []
    take = StaticSteps._take_buffers
    monkeypatch.setattr(StaticSteps, "_take_buffers", lambda steps: taken.append(steps) or take(steps))
    session = static_session()
    generate(session, prompt(100), QUEST, SamplingConfig(max_new_tokens=2))  # prepares the step
    taken.clear()
    generate(session, prompt(100), QUEST, SamplingConfig(max_new_tokens=25))
    assert len(taken) == 1


@pytest.mark.parametrize("collected", [True, False])
def test_no_garbage_is_collected_during_a_capture(collected):
    if not collected:
        gc.disable()
    try:
        with garbage_kept():
            assert not gc.isenabled()
        assert gc.isenabled() == collected
    finally:
        gc.enable()


def test_shapes():
    assert read_shape(QuestConfig(token_budget=100), 16) == read_shape(QuestConfig(token_budget=96), 16)
    assert read_shape(QuestConfig("dense", token_budget=100), 16) == read_shape(QuestConfig("dense"), 16)
    assert [table_pages_for(pages, 40) for pages in (1, 8, 9, 16, 17, 33, 40)] == [8, 8, 16, 16, 32, 40, 40]


@pytest.mark.slow
@pytest.mark.parametrize("graphs", [run_eagerly], indirect=True)
def test_the_gpus_kernels_take_the_static_buffers(tiny_engine, new_session, static_session, never, prompt):
    """In Triton's interpreter: tables longer than the sequence, lengths on the device alone; dense layers too."""
    triton = pytest.importorskip("triton")
    if not triton.knobs.runtime.interpret:
        pytest.skip("kernels are compiled where there is a GPU; test_on_gpu.py runs them there")
    import kernels.gpu

    decoder, steps = tiny_engine.decoder, []
    # Those that read the cache; products would take minutes, and have tests of their own.
    names, called = ("rotate_and_append", "dense_decode_attention", "choose_and_attend"), set()

    def observed(name):
        def operator(*arguments):
            called.add(name)
            return getattr(kernels.gpu, name)(*arguments)

        return operator

    mixed = vars(decoder.kernels) | {name: observed(name) for name in names}
    for make, operators, whole_step in (
        (new_session, decoder.kernels, decoder._whole_step),
        (static_session, SimpleNamespace(**mixed), None),
    ):
        session = make()
        list(session.prefill(prompt(157), never))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(decoder, "kernels", operators)
            patch.setattr(decoder, "_whole_step", whole_step)
            steps.append(list(session.decode(QUEST, SamplingConfig(max_new_tokens=6), never)))
    assert called == set(names)
    assert_same_steps(*steps)
