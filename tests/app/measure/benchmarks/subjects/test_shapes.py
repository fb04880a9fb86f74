"""Benchmarks of random weights in a tiny shape: decode, prefill and trace, and the random models they run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from app.errors import UserFacingError
from app.measure.benchmarks import decode_shapes
from app.measure.benchmarks.decode import WARM_UP_STEPS
from app.measure.benchmarks.decode_shapes import measure_decode_shapes
from app.measure.benchmarks.exact_rounds import RoundTimes
from app.measure.benchmarks.prefill import measure_prefill
from app.measure.benchmarks.rivals.transformers_rival import (
    random_dynamic_cache,
    random_static_cache,
    time_decode_steps,
)
from app.measure.benchmarks.subjects.random_model import fill_session, random_transformers_model, random_weights
from app.measure.benchmarks.subjects.shapes import SHAPES
from app.measure.benchmarks.subjects.subjects import LoadedSubject, RandomSubject, transformers_weight_bytes_read
from app.measure.benchmarks.trace import measure_trace
from quest_core.config import QuestConfig, SamplingConfig
from quest_core.decode.decode_graph import run_eagerly
from quest_core.decode.draft_length import FinishedRound
from quest_core.decode.round_graphs import RoundGraphs
from quest_core.engine import Cancellation
from quest_core.model.model_source import ModelError

DECODE_COLUMNS = [
    "engine", "shape", "attention", "weight_bits", "context_tokens", "token_budget", "ms_per_token", "tokens_per_s",
    "byte_bound_ms", "bound_fraction", "peak_memory_bytes",
]  # fmt: skip


def measure(settings, shape, **changes):
    arguments = {"contexts": [130], "budgets": [64], "weight_bits": [16], "steps": 2, "rounds": 1,
                 "rivals": ("transformers",)}  # fmt: skip
    return measure_decode_shapes(settings, shapes=[shape], **{**arguments, **changes})


def test_decode_rows(cpu_settings, tiny_shape):
    result = measure(cpu_settings, tiny_shape)
    assert [(row["engine"], row["attention"], row["token_budget"]) for row in result["rows"]] == [
        ("quest-chat", "dense", None), ("quest-chat", "quest", 64), ("quest-chat", "exact", 64),
        ("transformers", "sdpa", None),
    ]  # fmt: skip
    ours, quest, exact, theirs = result["rows"]
    assert all(list(row) == DECODE_COLUMNS for row in (ours, quest, theirs))
    assert list(exact) == [*DECODE_COLUMNS, "drafted", "accepted"]
    assert exact["byte_bound_ms"] is exact["bound_fraction"] is None
    assert 0 <= exact["accepted"] <= exact["drafted"]
    assert result["exact_rounds"] == []  # the CPU's are of any length
    assert quest["byte_bound_ms"] < ours["byte_bound_ms"]
    assert ours["byte_bound_ms"] == pytest.approx(theirs["byte_bound_ms"])
    assert result["skipped"] == []


def test_parts_of_a_round_and_what_they_give_at_a_given_acceptance(cpu_settings, tiny_shape, monkeypatch):
    """As on a GPU, with steps in the place of graphs; seven drafts have no room left in this window."""
    made = RandomSubject.engine

    def with_rounds(subject, context_tokens):
        engine = made(subject, context_tokens)
        graphs = RoundGraphs(engine.decoder, engine.pool, run_eagerly)
        engine.rope_variants = tuple(replace(variant, rounds=graphs) for variant in engine.rope_variants)
        return engine

    monkeypatch.setattr(RandomSubject, "engine", with_rounds)
    result = measure(cpu_settings, tiny_shape, rivals=())
    (parts,) = result["exact_rounds"]
    assert (parts["shape"], parts["context_tokens"], parts["token_budget"]) == ("tiny", 130, 64)
    assert list(parts["verify_ms"]) == ["1_rows", "2_rows", "4_rows"]
    assert parts["assumed_acceptance"] == pytest.approx(80 / 89)
    assert list(parts["computed_tokens_per_s"]) == ["0_drafts", "1_drafts", "3_drafts"]
    assert parts["computed_tokens_per_s"]["0_drafts"] == pytest.approx(1e3 / parts["verify_ms"]["1_rows"])


def test_tokens_of_a_round_are_computed_from_its_parts():
    times = RoundTimes()
    for draft_s, verify_s in (([], 4e-3), ([3e-3], 5e-3), ([3e-3, 2e-3, 2e-3], 6e-3)):
        times.add(FinishedRound((), 0, draft_s, verify_s))
    columns = times.columns(0.5)
    assert (columns["first_draft_ms"], columns["next_draft_ms"]) == pytest.approx((3.0, 2.0))
    assert columns["verify_ms"] == pytest.approx({"1_rows": 4.0, "2_rows": 5.0, "4_rows": 6.0})
    expected = {"0_drafts": 1 / 4e-3, "1_drafts": 1.5 / 8e-3, "3_drafts": 1.875 / 13e-3}
    assert columns["computed_tokens_per_s"] == pytest.approx(expected)
    assert RoundTimes().columns(0.5)["first_draft_ms"] is None


def test_a_rival_that_fails_is_left_out_with_its_reason(cpu_settings, tiny_shape, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("no compiler\nfor many lines")

    monkeypatch.setattr(decode_shapes.torch, "compile", fail)
    result = measure(cpu_settings, tiny_shape, rivals=("transformers-compiled",))
    assert [row["engine"] for row in result["rows"]] == ["quest-chat"] * 3
    assert [(each["engine"], each["reason"]) for each in result["skipped"]] == [
        ("transformers-compiled", "no compiler")
    ]


def test_ours_may_lack_memory_but_not_fail(cpu_settings, tiny_shape, monkeypatch):
    def raising(error):
        def fail(*arguments):
            raise error

        return fail

    monkeypatch.setattr(decode_shapes, "fill_session", raising(ModelError("too long")))
    result = measure(cpu_settings, tiny_shape, rivals=())
    assert (result["rows"], result["skipped"][0]["reason"]) == ([], "too long")
    monkeypatch.setattr(decode_shapes, "fill_session", raising(RuntimeError("a mistake")))
    with pytest.raises(RuntimeError, match="a mistake"):
        measure(cpu_settings, tiny_shape, rivals=())


def test_the_steps_end_at_the_context_and_must_fit(cpu_settings, tiny_shape, monkeypatch):
    filled = []
    monkeypatch.setattr(
        decode_shapes, "fill_session", lambda *arguments: (filled.append(arguments[1]), fill_session(*arguments))
    )
    result = measure(cpu_settings, tiny_shape, contexts=[150], steps=3, rivals=())
    assert filled == [150 - 3 - WARM_UP_STEPS - 1]
    assert {row["context_tokens"] for row in result["rows"]} == {150}
    with pytest.raises(UserFacingError, match="no room for 27 steps"):
        measure(cpu_settings, tiny_shape, contexts=[32], steps=27, rivals=())


def test_bytes_of_weights_are_those_of_the_shape(cpu_settings, tiny_shape):
    subject = RandomSubject(tiny_shape, cpu_settings)
    subject.engine(64).close()
    # Per layer: 6 + 2 * 2 heads of 16 in, 6 out, three matrices of 80, norms of 48, 48, 16 and 16.
    layer = 48 * 160 + 96 * 48 + 3 * 80 * 48 + 2 * 48 + 2 * 16
    assert subject.weight_bytes_read() == 4 * (3 * layer + 211 * 48 + 48)
    assert transformers_weight_bytes_read(subject.transformers_model(64)) == subject.weight_bytes_read()


def test_random_weights_repeat_and_differ(tiny_shape):
    first, second = (random_weights(tiny_shape.model_config(64), torch.device("cpu"), torch.float32) for _ in range(2))
    assert torch.equal(first.layers[2].down, second.layers[2].down)
    assert not torch.equal(first.layers[1].down, first.layers[2].down)
    assert first.layers[0].down.std() == pytest.approx(0.02, rel=0.1)
    assert (first.final_norm == 1).all() and (first.layers[0].query_norm == 1).all()


def test_a_filled_session_decodes_over_all_of_it(cpu_settings, tiny_shape):
    engine = RandomSubject(tiny_shape, cpu_settings).engine(200)

    def work(_):
        session = engine.new_session()
        with pytest.raises(ValueError, match="holds 0 tokens, not 2"):
            session.adopt_cache([1, 2], torch.zeros(211))
        fill_session(session, 150, 211)
        for trace_reads in (True, False):
            fork = session.fork()
            steps = fork.decode(
                QuestConfig(token_budget=64), SamplingConfig(max_new_tokens=3), Cancellation(), trace_reads
            )
            yield list(steps)
            fork.close()
        session.close()

    traced, untraced = engine.submit(work)
    engine.close()
    assert [step.context_tokens for step in traced] == [150, 151, 152]
    assert [step.token_id for step in traced] == [step.token_id for step in untraced]
    assert traced[-1].reads.page_reads.shape == (3, 10)
    assert untraced[-1].reads is None and untraced[-1].kv_bytes_read == 0 < traced[-1].kv_bytes_read


@torch.no_grad()
def test_both_caches_of_transformers_give_the_same_steps(tiny_shape):
    model = random_transformers_model(tiny_shape, 256, torch.device("cpu"), torch.float32)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    dynamic, static = random_dynamic_cache(model, 100), random_static_cache(model, 100, 10)
    token = torch.zeros((1, 1), dtype=torch.long)
    assert len(time_decode_steps(model, dynamic, token, 3)) == len(time_decode_steps(model, static, token, 3)) == 3
    assert int(dynamic.get_seq_length()) == int(static.get_seq_length()) == 103
    position = torch.tensor([[103]])
    logits = [model(token, position_ids=position, past_key_values=cache).logits for cache in (dynamic, static)]
    torch.testing.assert_close(*logits)


def test_prefill_rows(cpu_settings, tiny_shape):
    result = measure_prefill([RandomSubject(tiny_shape, cpu_settings)], contexts=[70, 600], rounds=1)
    assert list(result["rows"][0]) == [
        "engine", "shape", "context_tokens", "chunk_tokens", "prefill_s", "tokens_per_s", "peak_memory_bytes"
    ]  # fmt: skip
    assert [(row["engine"], row["context_tokens"], row["chunk_tokens"]) for row in result["rows"]] == [
        ("quest-chat", 70, 70), ("transformers", 70, 70), ("quest-chat", 600, 512), ("transformers", 600, 600),
    ]  # fmt: skip


def test_prefill_of_a_loaded_model(cpu_settings, tiny_model_folder):
    settings = replace(cpu_settings, model=str(tiny_model_folder))
    result = measure_prefill([LoadedSubject(settings, lambda message: None)], contexts=[100], rounds=1)
    assert [row["engine"] for row in result["rows"]] == ["quest-chat", "transformers"]


def test_trace_rows(cpu_settings, tiny_shape):
    subject = RandomSubject(tiny_shape, cpu_settings)
    result = measure_trace(subject, contexts=[130], budgets=[64, 96], steps=2, rounds=1)
    assert [row["token_budget"] for row in result["rows"]] == [64, 96]
    for row in result["rows"]:
        assert list(row) == [
            "context_tokens", "token_budget", "ms_per_token", "ms_per_token_without_trace", "overhead"
        ]  # fmt: skip
        assert row["overhead"] == pytest.approx(row["ms_per_token"] / row["ms_per_token_without_trace"] - 1)


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_are_models_that_the_decoder_takes(name):
    config = SHAPES[name].model_config(131072)
    assert (config.head_dim, config.num_query_heads, config.context_tokens) == (128, 32, 131072)
    assert config.rope.kind == "default" and config.rope.theta == SHAPES[name].rope_theta
    assert config.qk_norm == config.tied_embeddings == (name == "qwen3-4b")
