"""A window longer than the model's own: who is stretched by how much, and what happens to those who outgrow it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from quest_core.config import EngineConfig, QuestConfig, SamplingConfig
from quest_core.decode.decode_graph import StepGraphs, run_eagerly
from quest_core.engine import Engine

DENSE = QuestConfig(attention="dense")
OWN_TOKENS = 640


@pytest.fixture(scope="module")
def stretched_engine(tiny_folder):
    """The tiny model of 640 tokens with a window of 1600: as it is, stretched twice, and 2.5 times."""
    config = EngineConfig(device="cpu", dtype="float32", page_size=16, prefill_chunk_tokens=200, context_tokens=1600)
    engine = Engine.load(str(tiny_folder), config)
    yield engine
    engine.close()


@pytest.fixture
def session(stretched_engine):
    session = stretched_engine.new_session()
    yield session
    session.close()


def transformers_logits(folder, token_ids: list[int], factor: float) -> torch.Tensor:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    if factor > 1:
        config.max_position_embeddings = int(factor * OWN_TOKENS)
        config.rope_parameters = {
            "rope_type": "yarn",
            "rope_theta": config.rope_parameters["rope_theta"],
            "factor": factor,
            "original_max_position_embeddings": OWN_TOKENS,
        }
    model = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32)
    with torch.inference_mode():
        return model(torch.tensor([token_ids])).logits[0, -1]


@pytest.mark.parametrize(("length", "factor"), [(300, 1.0), (640, 1.0), (641, 2.0), (1280, 2.0), (1500, 2.5)])
def test_each_length_gives_transformers_logits_under_its_own_variant(
    session, tiny_folder, prompt, never, length, factor
):
    progress = list(session.prefill(prompt(length), never))
    assert {event.stretch_factor for event in progress} == {factor}
    assert not any(event.stretch_changed for event in progress)
    expected = transformers_logits(tiny_folder, prompt(length), factor)
    # transformers multiplies positions and frequencies in float32, which shows past a thousand tokens.
    assert (session.logits - expected).norm() / expected.norm() < 1e-4
    if factor > 1:
        unstretched = transformers_logits(tiny_folder, prompt(length), 1.0)
        assert (session.logits - unstretched).norm() / unstretched.norm() > 1e-2


def test_a_short_conversation_is_not_degraded(session, tiny_engine, generate, prompt):
    sampling = SamplingConfig(max_new_tokens=24)
    assert generate(session, prompt(250), DENSE, sampling) == generate(
        tiny_engine.new_session(), prompt(250), DENSE, sampling
    )


def test_a_conversation_that_outgrows_its_variant_is_read_again(session, stretched_engine, prompt, never, generate):
    long = prompt(700)
    list(session.prefill(long[:600], never))
    first, *_, last = session.prefill(long, never)
    assert (first.reused_tokens, first.stretch_factor, first.stretch_changed) == (0, 2.0, True)
    assert last.done_tokens == 700
    sampling = SamplingConfig(max_new_tokens=24)
    tokens = [step.token_id for step in session.decode(DENSE, sampling, never)]
    fresh = stretched_engine.new_session()
    assert tokens == generate(fresh, long, DENSE, sampling)
    fresh.close()
    # Within the variant the cache is kept, and a conversation cut short goes back to the model's own positions.
    assert next(iter(session.prefill(long + tokens[:5] + [5], never))).reused_tokens == 705
    cut = next(iter(session.prefill(long[:100], never)))
    assert (cut.reused_tokens, cut.stretch_factor, cut.stretch_changed) == (0, 1.0, True)


def test_room_for_the_answer_counts(session, prompt, never):
    assert next(iter(session.prefill(prompt(600), never, room_tokens=40))).stretch_factor == 1.0
    assert session.max_tokens == OWN_TOKENS
    assert next(iter(session.prefill(prompt(600), never, room_tokens=41))).stretch_factor == 2.0
    assert session.max_tokens == 2 * OWN_TOKENS
    # More room than the window has is no error: the answer ends with the window.
    assert next(iter(session.prefill(prompt(600), never, room_tokens=9999))).stretch_factor == 2.5
    assert session.max_tokens == 1600


def test_decoding_ends_where_the_variant_does(session, prompt, never):
    list(session.prefill(prompt(636), never))
    *_, last = session.decode(DENSE, SamplingConfig(max_new_tokens=50), never)
    assert (last.finish_reason, len(session.tokens)) == ("context", OWN_TOKENS)
    session.truncate(600)
    list(session.prefill(prompt(600), never))
    with pytest.raises(ValueError, match="41 tokens after 600 do not fit the 640 tokens"):
        next(session.score([5] * 41, DENSE, never))


def test_a_fork_is_stretched_as_its_origin(session, prompt, never):
    list(session.prefill(prompt(900), never))
    fork = session.fork()
    assert fork.max_tokens == 2 * OWN_TOKENS
    sampling = SamplingConfig(max_new_tokens=8)
    assert [step.token_id for step in fork.decode(DENSE, sampling, never)] == [
        step.token_id for step in session.decode(DENSE, sampling, never)
    ]
    fork.close()


def test_static_steps_read_the_tables_of_their_own_variant(session, stretched_engine, prompt, generate):
    engine = stretched_engine
    graphed = [
        replace(variant, graphs=StepGraphs(variant.decoder, engine.pool, run_eagerly))
        for variant in engine.rope_variants
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "rope_variants", graphed)
        static = engine.new_session()
    sampling = SamplingConfig(max_new_tokens=12)
    for length in (300, 700, 1500, 300):
        tokens = prompt(1500)[:length]
        assert generate(static, tokens, DENSE, sampling) == generate(session, tokens, DENSE, sampling)
    static.close()


def test_variants_share_the_weights(stretched_engine):
    decoders = [variant.decoder for variant in stretched_engine.rope_variants]
    assert len({id(decoder) for decoder in decoders}) == 3
    assert len({id(decoder._weights) for decoder in decoders}) == 1
    assert [variant.factor for variant in stretched_engine.rope_variants] == [1.0, 2.0, 2.5]
