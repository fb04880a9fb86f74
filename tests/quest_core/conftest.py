"""Tiny random models of every supported family, and engines over them."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from quest_core.config import EngineConfig
from quest_core.engine import Cancellation, Engine
from quest_core.model.model_source import embedded_model_path
from quest_core.model.quantization import quantize
from quest_core.model.weights import HEAD_BITS
from quest_core.session import Session

TINY = {
    "vocab_size": 211,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 640,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
    # Wide enough that greedy choices do not hang on rounding.
    "initializer_range": 0.3,
}
ROPE = {
    "linear": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 160,
    },
    "yarn": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 160,
    },
}
# name -> (transformers' config class, settings)
FAMILIES = {
    "llama2": ("LlamaConfig", {"num_key_value_heads": 6}),
    "llama3": ("LlamaConfig", {"rope_parameters": ROPE["llama3"]}),
    "llama_linear": ("LlamaConfig", {"rope_parameters": ROPE["linear"]}),
    "llama_biased": ("LlamaConfig", {"attention_bias": True}),
    "smollm2": ("LlamaConfig", {"num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 72,
                                "tie_word_embeddings": True}),
    "mistral": ("MistralConfig", {"sliding_window": None, "head_dim": 16}),
    "qwen2": ("Qwen2Config", {}),
    "qwen2_yarn": ("Qwen2Config", {"rope_parameters": ROPE["yarn"]}),
    "qwen3": ("Qwen3Config", {"head_dim": 32, "tie_word_embeddings": True}),
}


def write_tiny_model(family: str, folder: Path) -> torch.nn.Module:
    """Save a random model of `family` to `folder`; returns transformers' own model of it."""
    import transformers

    class_name, settings = FAMILIES[family]
    config = getattr(transformers, class_name)(**{**TINY, **settings})
    torch.manual_seed(len(family))
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name or "bias" in name:  # transformers starts them at 1 and 0, where mistakes do not show
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="session", params=FAMILIES)
def any_family(request, tmp_path_factory) -> Iterator[tuple[torch.nn.Module, Engine]]:
    """A tiny model of each family: transformers' version and an engine of ours, float32 on the CPU."""
    folder = tmp_path_factory.mktemp(request.param)
    reference = write_tiny_model(request.param, folder)
    engine = Engine.load(str(folder), EngineConfig(device="cpu", dtype="float32", prefill_chunk_tokens=100))
    yield reference, engine
    engine.close()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """The smollm2-like tiny model: grouped-query attention with a group of 3."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model("smollm2", folder)
    return folder


@pytest.fixture(scope="session")
def tiny_engine(tiny_folder) -> Iterator[Engine]:
    """An engine over `tiny_folder`, float32 on the CPU."""
    config = EngineConfig(device="cpu", dtype="float32", page_size=16, prefill_chunk_tokens=64)
    engine = Engine.load(str(tiny_folder), config)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def embedded_engine(embedded_model_cache) -> Iterator[Engine]:
    """The embedded model in float32 on the CPU."""
    if embedded_model_path() is None or importlib.util.find_spec("gguf") is None:
        pytest.skip("the embedded model's wheel is not installed (requirements-model.txt)")
    engine = Engine.load("embedded", EngineConfig(device="cpu", dtype="float32", cache_dir=embedded_model_cache))
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def write_rounded() -> Callable[..., Path]:
    """Writes a model whose plain weights are what another's stand for in so many bits."""

    def write(source: Path, folder: Path, bits: int, device: str = "cpu") -> Path:
        shutil.copytree(source, folder)
        tensors = load_file(folder / "model.safetensors")
        head_name, config = "lm_head.weight", json.loads((folder / "config.json").read_text())
        if bits < HEAD_BITS and config["tie_word_embeddings"]:
            tensors[head_name] = tensors["model.embed_tokens.weight"]
            (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
        for name, tensor in tensors.items():
            if name.endswith("_proj.weight") or (name == head_name and bits < HEAD_BITS):
                rounded = quantize(tensor.to(device), HEAD_BITS if name == head_name else bits)
                tensors[name] = rounded.dequantize().cpu().contiguous()
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return folder

    return write


@pytest.fixture
def new_session(tiny_engine) -> Iterator[Callable[[], Session]]:
    """Makes sessions of the tiny engine; every page they or their forks hold is given back after the test."""
    yield tiny_engine.new_session
    for session in tiny_engine.sessions:
        session.close()


@pytest.fixture
def prompt() -> Callable[[int], list[int]]:
    """Random token ids of the tiny vocabulary; the same for the same length."""

    def make(length_tokens: int, seed: int = 0) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(3, TINY["vocab_size"], (length_tokens,), generator=generator).tolist()

    return make


@pytest.fixture
def never() -> Cancellation:
    """A cancellation that nobody requests."""
    return Cancellation()


@pytest.fixture
def generate(never) -> Callable[..., list[int]]:
    """Prefill and decode in one go; returns the drawn tokens."""

    def run(session: Session, token_ids: list[int], quest, sampling) -> list[int]:
        list(session.prefill(token_ids, never))
        return [step.token_id for step in session.decode(quest, sampling, never)]

    return run


@pytest.fixture(scope="session")
def write_gguf() -> Callable[..., Path]:
    """Writes a GGUF model of 2 layers and 259 tokens; see `write_small_gguf`."""
    return write_small_gguf


def write_small_gguf(
    path: Path,
    architecture: str = "llama",
    values: dict[str, object] | None = None,
    tensors: dict[str, object] | None = None,
    part: tuple[int, int] | None = None,
) -> Path:
    """Write a GGUF file.

    Args:
        values: metadata that differs or is new, by key; `{a}` stands for the architecture, and None leaves one out.
        tensors: numpy arrays that differ or are new, by name; None leaves one out.
        part: (number from 0, count) writes one part of a split model, as gguf-split does: only the first has the
            other metadata, and each has every count-th tensor.
    """
    import gguf
    import numpy as np
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    tokens = [*bytes_to_unicode().values(), "<s>", "</s>", "he"]
    metadata = {
        "{a}.block_count": 2,
        "{a}.context_length": 256,
        "{a}.embedding_length": 64,
        "{a}.feed_forward_length": 96,
        "{a}.attention.head_count": 4,
        "{a}.attention.head_count_kv": 2,
        "{a}.attention.layer_norm_rms_epsilon": 1e-6,
        "{a}.rope.freq_base": 10000.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * 256 + [3, 3, 1],
        "tokenizer.ggml.merges": ["h e"],
        "tokenizer.ggml.bos_token_id": 256,
        "tokenizer.ggml.eos_token_id": 257,
    } | (values or {})
    shapes = {"token_embd.weight": (len(tokens), 64), "output_norm.weight": (64,)}
    for layer in range(2):
        shapes |= {
            f"blk.{layer}.attn_q.weight": (64, 64),
            f"blk.{layer}.attn_k.weight": (32, 64),
            f"blk.{layer}.attn_v.weight": (32, 64),
            f"blk.{layer}.attn_output.weight": (64, 64),
            f"blk.{layer}.attn_norm.weight": (64,),
            f"blk.{layer}.ffn_norm.weight": (64,),
            f"blk.{layer}.ffn_gate.weight": (96, 64),
            f"blk.{layer}.ffn_up.weight": (96, 64),
            f"blk.{layer}.ffn_down.weight": (64, 96),
        }
    random = np.random.default_rng(0)
    arrays = {name: random.standard_normal(shape, np.float32) * 0.2 for name, shape in shapes.items()}
    arrays |= tensors or {}
    number, count = part or (0, 1)
    writer = gguf.GGUFWriter(path, architecture)
    if part is not None:
        metadata = metadata if number == 0 else {}
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", count)
        writer.add_int32("split.tensors.count", len(arrays))
    kinds = {str: writer.add_string, float: writer.add_float32, list: writer.add_array, bool: writer.add_bool}
    for key, value in metadata.items():
        if value is not None:
            kinds.get(type(value), writer.add_uint64)(key.format(a=architecture), value)
    for name, array in list(arrays.items())[number::count]:
        if array is not None:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
