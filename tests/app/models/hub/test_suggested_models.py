"""The list of suggested models: what it says is right, and it is cut to the machine."""

from __future__ import annotations

import pytest

from app.models.device_memory import USABLE_PART, DeviceMemory, device_memory
from app.models.hub.hub_model import split_model_id
from app.models.hub.suggested_models import find_fit, is_slow, is_too_slow, suggested_models
from quest_core.config import SUPPORTED_FAMILIES, EngineConfig

GIB = 1 << 30


def memory(gibibytes: float, is_gpu: bool) -> DeviceMemory:
    """Of which so much is usable."""
    device = "cuda" if is_gpu else "cpu"
    total_bytes = round(gibibytes * GIB / USABLE_PART[device])
    return DeviceMemory(device, "", total_bytes, total_bytes)


def test_what_the_list_says_agrees_with_the_shapes():
    models = suggested_models()
    assert [model.download_bytes for model in models] == sorted(model.download_bytes for model in models)
    for model in models:
        assert model.config.family in SUPPORTED_FAMILIES and split_model_id(model.model) == (model.model, "")
        # 16-bit weights, in some with the head beside the embedding that it is tied to, and a tokenizer.
        tied_head = model.config.tied_embeddings * model.config.vocab_size * model.config.hidden_size
        stored = [2 * weights + 16e6 for weights in (model.parameters, model.parameters + tied_head)]
        assert min(abs(model.download_bytes / one - 1) for one in stored) < 0.01, model.name
        assert model.licence == "Apache-2.0" and model.config.context_tokens == model.window_tokens


@pytest.mark.parametrize(
    ("gibibytes", "is_gpu"), [(3, False), (12, False), (20, False), (7, True), (22, True), (75, True)]
)
def test_what_is_suggested_fits_and_what_is_recommended_is_among_it(gibibytes, is_gpu):
    there = memory(gibibytes, is_gpu)
    fits = {model: find_fit(model.config, there, EngineConfig()) for model in suggested_models()}
    assert all(fit.needed_bytes <= there.usable_bytes for fit in fits.values() if fit)
    recommended = next(one for one in fits if one.recommended_for == ("gpu" if is_gpu else "cpu"))
    assert fits[recommended] is not None
    # More memory never means coarser weights.
    for model, fit in fits.items():
        more = find_fit(model.config, memory(2 * gibibytes, is_gpu), EngineConfig())
        assert fit is None or (more.context_tokens, more.weight_bits) >= (fit.context_tokens, fit.weight_bits)


def test_large_models_are_not_for_a_machine_without_a_gpu():
    there = memory(500, False)
    assert [model.name for model in suggested_models() if is_too_slow(model.config, there)] == [
        "Qwen2.5 7B Instruct",
        "Qwen3 8B",
        "Qwen3 14B",
        "Qwen3 32B",
    ]
    assert {is_slow(model.config, there) for model in suggested_models()[:2]} == {False}
    assert not any(is_slow(model.config, memory(80, True)) for model in suggested_models())


def test_the_memory_of_this_machine():
    there = device_memory("cpu")
    assert 0 < there.usable_bytes < there.total_bytes and not there.is_gpu
