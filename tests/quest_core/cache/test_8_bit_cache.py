"""The engine with keys and values in 8 bits: on a GPU, and with the GPU's kernels interpreted on the CPU."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import kernels.cpu
import kernels.gpu
from kernels.float8 import round_to_float8, widen
from quest_core import decoder
from quest_core.config import EngineConfig, QuestConfig, SamplingConfig
from quest_core.engine import Engine, read_model_config
from quest_core.model.model_source import ModelError
from quest_core.model.weights import load_weights

HAS_GPU = torch.cuda.is_available()
DENSE = QuestConfig(attention="dense")
STEPS = SamplingConfig(max_new_tokens=24 if HAS_GPU else 3)
PROMPT_TOKENS = 250 if HAS_GPU else 90
# Sums in another order may bring a number to the other side of the middle between two codes.
MAX_ERROR = 1e-2


def operators():
    """The GPU's; where they are interpreted those that do not touch the cache are the CPU's, which take no time."""
    chosen = {name: getattr(kernels.gpu, name) for name in kernels.gpu.__all__} | {"WholeStep": None}
    if not HAS_GPU:
        others = ("apply_rope", "rms_norm", "swiglu", "norm_linear", "norm_swiglu", "linear_add")
        chosen |= {name: getattr(kernels.cpu, name) for name in others}
    return SimpleNamespace(**chosen)


@pytest.fixture(params=["interpreter", pytest.param("cuda", marks=pytest.mark.gpu)])
def load_tiny(request, tiny_folder, monkeypatch):
    """Loads the tiny model in float32 with the GPU's kernels, or with others; steps are launched one by one."""
    if HAS_GPU and request.param == "interpreter":
        pytest.skip("with a GPU its kernels are compiled")
    engines = []

    def load(kv_bits, kernels=None):
        kernels = kernels or operators()
        monkeypatch.setattr(decoder, "kernels_for", lambda device: kernels)
        device = torch.device("cuda:0" if HAS_GPU else "cpu")
        config = EngineConfig(
            device=device.type, dtype="float32", page_size=16, kv_bits=kv_bits, eager=True, prefill_chunk_tokens=64
        )
        model_config = read_model_config(tiny_folder)
        weights = load_weights(tiny_folder, model_config, device, torch.float32, 16)
        # Past `Engine.load`, which refuses 8 bits on the CPU.
        engines.append(Engine("tiny", tiny_folder, model_config, config, weights))
        return engines[-1]

    yield load
    for engine in engines:
        engine.close()


def rounding_kernels():
    """The GPU's kernels, which round keys and values as 8 bits would before they write them to floating pages."""

    def append(keys, values, cache, sequence):
        rounded = (widen(*round_to_float8(each)) for each in (keys, values))
        kernels.gpu.append_keys_values(*rounded, cache, sequence)

    def rotate_and_append(projected, norms, rope, cache, sequence):
        query = kernels.gpu.rotate_and_append(projected, norms, rope, cache, sequence)
        position = int(sequence.length_tokens) - 1
        page, slot = int(sequence.page_table[position // 16]), position % 16
        append(*(pages[page, :, slot][None].clone() for pages in (cache.key_pages, cache.value_pages)), cache, sequence)
        return query

    return SimpleNamespace(
        **vars(operators()) | {"append_keys_values": append, "rotate_and_append": rotate_and_append}
    )


def relative_error(actual, expected):
    return float((actual - expected).norm() / expected.norm())


def run(engine, token_ids, quest, never):
    """Tokens drawn after a prefill, and the logits after the last."""
    session = engine.new_session()
    list(session.prefill(token_ids, never))
    steps = list(session.decode(quest, STEPS, never))
    return [step.token_id for step in steps], session.logits


def test_the_cache_is_what_rounded_keys_and_values_give(load_tiny, prompt, never):
    quest = QuestConfig(token_budget=64, dense_layers=1)
    expected_tokens, expected = run(load_tiny(16, rounding_kernels()), prompt(PROMPT_TOKENS), quest, never)
    tokens, logits = run(load_tiny(8), prompt(PROMPT_TOKENS), quest, never)
    assert tokens == expected_tokens
    assert relative_error(logits, expected) <= MAX_ERROR


def test_forks_and_truncations_equal_a_fresh_prefill(load_tiny, prompt, never):
    engine = load_tiny(8)
    kept, continued = prompt(70), prompt(70) + prompt(20, seed=1)
    fresh = engine.new_session()
    list(fresh.prefill(continued, never))
    truncated = engine.new_session()
    list(truncated.prefill(kept + prompt(30, seed=2), never))
    fork = truncated.fork()
    for session in (truncated, fork):
        list(session.prefill(continued, never))
        assert relative_error(session.logits, fresh.logits) <= MAX_ERROR
    assert engine.pool.is_shared(int(truncated.cache.page_table[0]))


def test_a_budget_of_the_whole_context_equals_dense(load_tiny, prompt, never):
    engine = load_tiny(8)
    (dense, dense_logits), (quest, quest_logits) = (
        run(engine, prompt(40), config, never) for config in (DENSE, QuestConfig(token_budget=640))
    )
    assert quest == dense
    assert relative_error(quest_logits, dense_logits) <= 1e-5


def test_bytes_are_counted_with_their_scales(load_tiny, prompt, never):
    engine = load_tiny(8, kernels.gpu)
    session = engine.new_session()
    list(session.prefill(prompt(20), never))
    step = list(session.decode(DENSE, SamplingConfig(max_new_tokens=2), never))[-1]
    # 4 layers, 3 kv heads, 2 pages of 16 tokens, keys and values of 8 bytes with 4 of a scale.
    assert step.kv_bytes_read == 4 * 3 * 2 * 16 * 2 * (8 + 4)


def test_the_caches_precision_is_one_that_is_computed_with(load_tiny):
    """The benchmarks have a limit for it."""
    assert load_tiny(8).kv_dtype == torch.float32


def test_the_cpu_refuses_8_bits(tiny_folder):
    with pytest.raises(ModelError, match="--kv-bits 8 needs a CUDA GPU"):
        Engine.load(str(tiny_folder), EngineConfig(device="cpu", kv_bits=8))
