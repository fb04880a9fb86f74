"""Packed copies for decode steps, and that steps with them are what the rest of the engine is."""

from __future__ import annotations

import pytest
import torch

from kernels.contract import PackedMatrix
from kernels.reference import naive_dequantize
from quest_core.config import EngineConfig, QuestConfig, SamplingConfig
from quest_core.engine import Engine
from quest_core.model.decode_weights import as_decode_weights, pack_decode_weights
from quest_core.model.quantization import fits_4_bits, quantize
from quest_core.model.weights import QUANTIZED

DENSE = QuestConfig(attention="dense")


@pytest.fixture(scope="module")
def packed_engine(tiny_folder):
    """The tiny model without a wish for a precision: packed weights, and a cache in 16 bits."""
    engine = Engine.load(str(tiny_folder), EngineConfig(device="cpu", prefill_chunk_tokens=64))
    yield engine
    engine.close()


def restore(matrix: PackedMatrix, in_channels: int) -> torch.Tensor:
    return naive_dequantize(matrix, in_channels, torch.float32)


def test_copies_in_8_bits_are_within_half_a_step(tiny_engine):
    weights = tiny_engine.weights
    packed = pack_decode_weights(weights)
    for copy, own in zip((*packed.layers, packed), (*as_decode_weights(weights).layers, weights), strict=True):
        for name in QUANTIZED if hasattr(copy, "qkv") else ("head",):
            matrix, exact = getattr(copy, name), getattr(own, name)
            assert matrix.bits == 8
            steps = matrix.scales.float().repeat_interleave(32, dim=1)[:, : exact.shape[1]]
            assert ((restore(matrix, exact.shape[1]) - exact).abs() <= 0.5 * steps + 1e-6).all()
    matrices = [packed.head, *(getattr(layer, name) for layer in packed.layers for name in QUANTIZED)]
    assert packed.copied_bytes == sum(part.nbytes for matrix in matrices for part in matrix[:3])


def test_what_was_in_4_bits_before_is_kept_in_4():
    weights = torch.randn((64, 100), generator=torch.Generator().manual_seed(0))
    assert not fits_4_bits(weights)
    once = quantize(weights, 4, ranges_kept=(1.0,)).dequantize()
    for stored in (torch.float32, torch.float16, torch.bfloat16):  # as a file keeps it
        assert fits_4_bits(once.to(stored))
    again = quantize(once.half(), 4, ranges_kept=(1.0,)).dequantize()
    assert (again - once).norm() <= 1e-3 * once.norm()


def test_an_explicit_precision_makes_no_copies(tiny_engine, packed_engine):
    assert tiny_engine.decode_weights.copied_bytes == 0
    assert tiny_engine.decode_weights.head is tiny_engine.weights.head
    assert packed_engine.decode_weights.copied_bytes > 0
    # Against its own weights: on a CPU that multiplies 16-bit numbers fast they take half of what the other's take.
    for engine in (tiny_engine, packed_engine):
        copied_bytes = engine.memory()["weight_bytes"] - engine.weights.bytes
        assert (copied_bytes > 0) == (engine is packed_engine)
    assert (tiny_engine.pool.layout.dtype, packed_engine.pool.layout.dtype) == (torch.float32, torch.float16)


@pytest.mark.parametrize("quest", [DENSE, QuestConfig(token_budget=128)], ids=["dense", "quest"])
def test_a_whole_step_equals_its_operators_one_by_one(tiny_engine, never, prompt, quest):
    """What wraps the attention, as measurements do, takes the operators one by one."""

    def wrap(attention):
        return lambda *arguments: attention(*arguments)

    session = tiny_engine.new_session()
    list(session.prefill(prompt(300), never))
    other = session.fork()
    tokens = prompt(20, seed=1)
    whole = [scored.log_probability for scored in session.score(tokens, quest, never)]
    single = [scored.log_probability for scored in other.score(tokens, quest, never, watch=wrap)]
    session.close()
    other.close()
    torch.testing.assert_close(torch.tensor(whole), torch.tensor(single), atol=1e-3, rtol=0)


def test_packed_copies_say_what_the_model_says(tiny_engine, packed_engine, never, prompt):
    scores = []
    for engine in (tiny_engine, packed_engine):
        session = engine.new_session()
        list(session.prefill(prompt(300), never))
        scores.append([scored.log_probability for scored in session.score(prompt(40, seed=1), DENSE, never)])
        session.close()
    assert abs(sum(scores[0]) - sum(scores[1])) / len(scores[0]) < 0.05


def test_greedy_tokens_with_one_and_two_threads(tiny_folder, generate, prompt, monkeypatch):
    monkeypatch.setattr("kernels.step.cpu.SHARED_WEIGHT_BYTES", 0)
    drawn = []
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        engine = Engine.load(str(tiny_folder), EngineConfig(device="cpu"))
        sampling = SamplingConfig(max_new_tokens=24)
        drawn.append(generate(engine.new_session(), prompt(300), QuestConfig(token_budget=128), sampling))
        engine.close()
    assert drawn[0] == drawn[1]
