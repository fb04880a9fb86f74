"""The engine on a CUDA GPU against transformers and against itself on the CPU."""

from __future__ import annotations

import copy

import pytest
import torch

from quest_core.config import EngineConfig, QuestConfig, SamplingConfig
from quest_core.engine import Engine

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
    assert (session._logits.cpu() - expected).norm() <= 1.5 * (theirs - expected).norm()
    engine.close()


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
def test_quantised_weights_equal_the_cpu_engines(any_family, generate, prompt, length, bits):
    """The same rounded weights but for the precision of their scales."""
    _, cpu_engine = any_family
    logits = []
    for device in ("cpu", "cuda"):
        config = EngineConfig(device=device, dtype="float32", weight_bits=bits)
        engine = Engine.load(str(cpu_engine.model_folder), config)
        session = engine.new_session()
        generate(session, prompt(length), QuestConfig(attention="dense"), SamplingConfig(max_new_tokens=1))
        logits.append(session._logits.cpu())
        engine.close()
    assert (logits[1] - logits[0]).norm() <= 0.05 * logits[0].norm()
