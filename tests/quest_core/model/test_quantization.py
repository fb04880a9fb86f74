"""Weights in 8 and 4 bits: how far rounding may go, and a model that runs on them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import AutoTokenizer

from quest_core.config import EngineConfig, QuestConfig, SamplingConfig
from quest_core.engine import Engine, read_model_config
from quest_core.model.quantization import QuantizedMatrix, quantize, quantized_bytes
from quest_core.model.weights import HEAD_BITS, QUANTIZED, load_weights

CPU = torch.device("cpu")
DENSE = QuestConfig(attention="dense")


def restore(matrix: QuantizedMatrix) -> torch.Tensor:
    return matrix.dequantize()


def draw(shape, offset=0.0, size=1.0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))) * size + offset


@pytest.fixture(params=[torch.float32, torch.float16], ids=["float32_scales", "float16_scales"])
def scales_in(request, monkeypatch):
    """Another precision of scales than the usual."""
    monkeypatch.setattr("quest_core.model.quantization.SCALE_DTYPE", request.param)
    return request.param


# Rows of one group, of several, and with padding in the last one.
@pytest.mark.parametrize(
    ("bits", "group_size", "shape", "offset", "size"),
    [
        (8, 32, (49, 576), 0.0, 1.0),
        (4, 32, (49, 576), 5.0, 1e-3),
        (8, 64, (49, 576), 0.0, 1e-5),
        (4, 128, (49, 576), -3.0, 0.1),
        (8, 32, (5, 80), 0.0, 300.0),
        (4, 64, (5, 80), 0.0, 1.0),
        (8, 128, (3, 1), 5.0, 1e-3),
        (4, 32, (3, 1), 0.0, 300.0),
    ],
    ids=str,
)
def test_each_weight_comes_back_within_half_a_step(scales_in, shape, group_size, bits, offset, size):
    weights = draw(shape, offset, size)
    matrix = quantize(weights, bits, group_size, ranges_kept=(1.0,))
    assert (matrix.scales.dtype, matrix.group_size) == (scales_in, group_size)
    steps = matrix.scales.float().repeat_interleave(group_size, dim=1)[:, : shape[1]]
    # Beyond half a step only float32's own rounding.
    assert ((restore(matrix) - weights).abs() <= 0.5 * steps + 1e-6 * weights.abs().max()).all()


@pytest.mark.parametrize("bits", [8, 4])
def test_a_step_is_no_wider_than_the_groups_range_needs(monkeypatch, bits):
    # Half a float rounds by more than this.
    monkeypatch.setattr("quest_core.model.quantization.SCALE_DTYPE", torch.float32)
    grouped = draw((64, 18, 32))
    matrix = quantize(grouped.view(64, -1), bits, ranges_kept=(1.0,))
    needed = (grouped.amax(2) - grouped.amin(2)) / (2**bits - 1)
    torch.testing.assert_close(matrix.scales, needed, rtol=1e-3, atol=0)


def test_equal_weights_and_zeros_are_exact(scales_in):
    for value in (0.0, 0.5, -2.0):
        weights = torch.full((3, 96), value)
        torch.testing.assert_close(restore(quantize(weights, 4)), weights, rtol=0, atol=0)


def test_groups_that_are_already_quantised_come_back(scales_in):
    """As a GGUF's Q4_1 blocks do: 16 values from their minimum, in steps of half precision."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 16, (64, 18, 32), generator=generator)
    values[..., 0], values[..., 1] = 0, 15
    steps, minimums = torch.rand((2, 64, 18, 1), generator=generator).half().float()
    weights = (values * steps - minimums).view(64, -1).half()
    error = (restore(quantize(weights, 4)) - weights.float()).norm() / weights.float().norm()
    assert error < 1e-3


def test_cutting_off_outliers_lessens_the_error():
    weights = draw((256, 576))
    errors = [(restore(quantize(weights, 4, 128, kept)) - weights).square().sum() for kept in ((1.0,), None)]
    assert errors[1] < 0.97 * errors[0]


def test_sizes_are_what_was_planned():
    matrix = quantize(draw((49, 80)), 4)
    assert quantized_bytes(49, 80, 4) == sum(parameter.nbytes for parameter in matrix.parameters())


def test_wrong_requests_are_refused():
    with pytest.raises(ValueError, match="bits must be one of.*got 5"):
        quantize(draw((2, 32)), 5)
    with pytest.raises(ValueError, match="group_size must be one of.*got 48"):
        quantize(draw((2, 48)), 4, 48)
    with pytest.raises(ValueError, match="not finite"):
        quantize(torch.full((2, 32), float("nan")), 8)


@pytest.mark.parametrize("bits", [8, 4])
def test_loading_quantises_the_projections_and_counts_them(tiny_folder, bits):
    config = read_model_config(tiny_folder)
    plain = load_weights(tiny_folder, config, CPU, torch.float32)
    weights = load_weights(tiny_folder, config, CPU, torch.float32, bits)
    expected_bytes = plain.bytes
    for layer, reference in zip(weights.layers, plain.layers, strict=True):
        for name in QUANTIZED:
            matrix, dense = getattr(layer, name), getattr(reference, name)
            assert (restore(matrix) - dense).norm() <= (0.01 if bits == 8 else 0.1) * dense.norm()
            expected_bytes += quantized_bytes(*dense.shape, bits) - dense.nbytes
    if bits == 4:  # tied to the embedding, which stays as it is: the head is a copy
        expected_bytes += quantized_bytes(*plain.embedding.shape, HEAD_BITS)
        assert weights.head.bits == HEAD_BITS
        assert (restore(weights.lm_head) - plain.head).norm() <= 0.01 * plain.head.norm()
    assert weights.bytes == expected_bytes
    assert weights.embedding.equal(plain.embedding)


def test_a_head_of_its_own_is_replaced(tiny_folder, write_rounded, tmp_path):
    folder = write_rounded(tiny_folder, tmp_path / "model", 4)
    config = read_model_config(folder)
    plain, weights = (load_weights(folder, config, CPU, torch.float32, bits) for bits in (16, 4))
    torch.testing.assert_close(restore(weights.lm_head), plain.lm_head.data, rtol=1e-3, atol=1e-4)
    names = [name for name, _ in weights.named_parameters() if name.startswith("lm_head")]
    assert names == ["lm_head.packed", "lm_head.scales", "lm_head.minimums"]


@pytest.fixture(scope="module", params=[8, 4])
def rounded_engines(request, tiny_folder, write_rounded, tmp_path_factory):
    """The tiny model quantised, and one whose plain weights are what the quantised ones stand for."""
    folder = write_rounded(tiny_folder, tmp_path_factory.mktemp("rounded") / "model", request.param)
    config = EngineConfig(device="cpu", dtype="float32", weight_bits=request.param)
    engines = [Engine.load(str(tiny_folder), config), Engine.load(str(folder), replace(config, weight_bits=16))]
    yield engines
    for engine in engines:
        engine.close()


@pytest.mark.parametrize("length", [1, 2, 9, 250])
def test_an_engine_computes_with_the_rounded_weights(rounded_engines, prompt, never, length):
    sessions = [engine.new_session() for engine in rounded_engines]
    for session in sessions:
        list(session.prefill(prompt(length), never))
    torch.testing.assert_close(sessions[0].logits, sessions[1].logits, rtol=1e-3, atol=1e-3)
    sampling = SamplingConfig(max_new_tokens=24)
    texts = [[step.token_id for step in session.decode(DENSE, sampling, never)] for session in sessions]
    assert texts[0] == texts[1]
    for session in sessions:
        session.close()


def test_8_bits_are_close_to_the_plain_weights(tiny_engine, tiny_folder, prompt, never):
    """As close as a random model lets them be: it has wide weights, so that each layer's rounding grows in the next."""
    config = EngineConfig(device="cpu", dtype="float32", weight_bits=8)
    engine = Engine.load(str(tiny_folder), config)
    sessions = [tiny_engine.new_session(), engine.new_session()]
    for session in sessions:
        list(session.prefill(prompt(250), never))
    exact, rounded = (session.logits for session in sessions)
    assert (rounded - exact).norm() <= 0.15 * exact.norm()
    sessions[0].close()
    engine.close()


@pytest.mark.slow
def test_the_embedded_model_says_the_same_in_8_bits(embedded_engine, embedded_model_cache, generate):
    config = EngineConfig(device="cpu", dtype="float32", weight_bits=8, cache_dir=embedded_model_cache)
    engine = Engine.load("embedded", config)
    tokenizer = AutoTokenizer.from_pretrained(engine.model_folder)
    token_ids = tokenizer("The lighthouse stood on a rock a mile from")["input_ids"]
    sampling = SamplingConfig(max_new_tokens=16)
    texts = [generate(each.new_session(), token_ids, DENSE, sampling) for each in (embedded_engine, engine)]
    assert texts[0] == texts[1]
    assert engine.memory()["weight_bytes"] < 0.5 * embedded_engine.memory()["weight_bytes"]
    engine.close()
