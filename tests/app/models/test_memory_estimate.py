"""What is said of a model's memory before it is loaded, against what it then takes.

On the CPU in a process of its own: resident memory at the peak of reading a full window, and the engine's own account.
On a GPU: what torch has allocated.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from app.models.device_memory import DeviceMemory, device_memory
from app.models.memory_estimate import estimate_memory
from app.settings import AppSettings
from quest_core import memory_plan
from quest_core.errors import ModelError
from quest_core.model.model_outline import ModelOutline, read_outline
from quest_core.model.model_source import embedded_model_path

ROOT = Path(__file__).resolve().parents[3]
WINDOW_TOKENS = 4096
GIB = 1 << 30


def write_random_model(folder: Path, **shape: int) -> Path:
    """A Llama of random weights, in bfloat16."""
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = {
        "vocab_size": 8192,
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": WINDOW_TOKENS,
    } | shape
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**settings)).to(torch.bfloat16).save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def random_model(tmp_path_factory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("random"))


def measure(models: list[dict]) -> dict[str, int]:
    """What the last of these takes, in a process of its own: what others leave there would blur it."""
    told = subprocess.run(
        [sys.executable, "-m", "tests.app.models.measured_process"],
        input=json.dumps({"models": models}), capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    return json.loads(told.stdout)


def test_an_estimate_is_within_a_tenth_of_what_is_resident(random_model, tmp_path, embedded_model_cache, monkeypatch):
    if not sys.platform.startswith("linux"):
        pytest.skip("the peak of resident memory is Linux' to tell")
    if embedded_model_path() is None:
        pytest.skip("the embedded model's wheel is not installed")
    warm = write_random_model(tmp_path / "warm", vocab_size=512, hidden_size=64, intermediate_size=64)
    models = [(str(warm), 1024), ("embedded", WINDOW_TOKENS), (str(random_model), WINDOW_TOKENS)]
    asked = [
        {"model": model, "context_tokens": tokens, "cache_dir": str(embedded_model_cache)} for model, tokens in models
    ]
    measured = [measure([asked[0], one]) for one in asked[1:]]
    monkeypatch.setattr(memory_plan, "grants_large_pages", lambda: False)
    settings = AppSettings(data_dir=tmp_path, device="cpu")
    memory = device_memory(settings.device)
    for path, found in zip((embedded_model_path(), random_model), measured, strict=True):
        estimate = estimate_memory(read_outline(path), settings, WINDOW_TOKENS, memory)
        assert estimate.total_bytes == pytest.approx(found["resident"], rel=0.1), (path.name, estimate, found)
        # Weights, copies and cache alone are known to the byte, but for a session's last pages.
        known = estimate.weights_bytes + estimate.cache_bytes
        assert known == pytest.approx(found["accounted"], rel=0.01), (path.name, estimate, found)


@pytest.fixture(scope="module")
def outline(random_model) -> ModelOutline:
    return read_outline(random_model)


def test_whether_it_fits_is_said_before_loading(outline, tmp_path, monkeypatch):
    monkeypatch.setattr(memory_plan, "grants_large_pages", lambda: False)
    settings = AppSettings(data_dir=tmp_path, device="cpu")

    def fit(free_bytes: int, held_bytes: int = 0, tokens: int | None = None):
        memory = DeviceMemory("cpu", "this computer", 64 * GIB, free_bytes, held_bytes)
        return estimate_memory(outline, settings, tokens, memory)

    needed = fit(8 * GIB)
    assert (needed.fit, needed.reason, needed.context_tokens) == ("beside", "", WINDOW_TOKENS)
    assert needed.total_bytes == needed.weights_bytes + needed.cache_bytes + needed.work_bytes
    assert needed.pool_bytes >= needed.cache_bytes
    instead = fit(needed.total_bytes // 2, 8 * GIB)
    assert instead.fit == "instead" and "let go first" in instead.reason
    little = needed.total_bytes - 1
    no = fit(little)
    assert no.fit == "no" and 0 < no.fitting_tokens < WINDOW_TOKENS and "GiB free" in no.reason
    assert fit(little, tokens=no.fitting_tokens).fit == "beside"
    assert fit(1 << 20).fitting_tokens == 0
    assert fit(8 * GIB, tokens=1024).cache_bytes < needed.cache_bytes
    halved = estimate_memory(
        outline, AppSettings(data_dir=tmp_path, device="cpu", weight_bits=4), None, DeviceMemory("cpu", "", 0, 8 * GIB)
    )
    assert halved.weights_bytes < needed.weights_bytes / 2


def test_a_window_that_a_model_cannot_have(random_model, tmp_path):
    config = json.loads((random_model / "config.json").read_text())
    stretched = tmp_path / "stretched"
    stretched.mkdir()
    scaling = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    (stretched / "config.json").write_text(json.dumps(config | {"rope_parameters": scaling}))
    for name in ("model.safetensors", "tokenizer.json"):
        (stretched / name).write_bytes((random_model / name).read_bytes())
    settings = AppSettings(data_dir=tmp_path, device="cpu")
    with pytest.raises(ModelError, match="more than it can read"):
        estimate_memory(read_outline(stretched), settings, 100_000, device_memory(settings.device))


@pytest.mark.gpu
@pytest.mark.parametrize("weight_bits", [16, 4])
def test_an_estimate_is_within_a_tenth_of_what_a_gpu_allocates(tmp_path, weight_bits):
    from quest_core.config import QuestConfig, SamplingConfig
    from quest_core.engine import Engine

    folder = write_random_model(
        tmp_path / "model", vocab_size=32000, hidden_size=2048, intermediate_size=6144, num_attention_heads=16,
        max_position_embeddings=16384,
    )  # fmt: skip
    settings = AppSettings(data_dir=tmp_path, model=str(folder), device="cuda", weight_bits=weight_bits)
    device_memory(settings.device)
    before = torch.cuda.memory_allocated()
    estimate = estimate_memory(read_outline(folder), settings, None, device_memory(settings.device))
    torch.cuda.reset_peak_memory_stats()
    engine = Engine.load(str(folder), settings.engine_config())

    def work(cancellation):
        session = engine.new_session()
        tokens = [token % 32000 for token in range(16000)]
        yield from session.prefill(tokens, cancellation)
        yield from session.decode(QuestConfig(), SamplingConfig(max_new_tokens=8), cancellation)

    try:
        list(engine.submit(work))
        taken = torch.cuda.max_memory_allocated() - before
    finally:
        engine.close()
    # A GPU's pool is taken at once.
    expected = estimate.total_bytes - estimate.cache_bytes + estimate.pool_bytes
    assert expected == pytest.approx(taken, rel=0.1), estimate
