"""Convert a GGUF file once into a Hugging Face folder (config.json, tokenizer, safetensors) and keep it.

Dequantises with the gguf package; the config and the tokenizer are read by transformers. The tensor names and the
interleaved query/key rows of the llama architecture follow llama.cpp's conversion (docs/gguf in ggml).
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from quest_core.config import ModelConfig

# GGUF architecture -> whether its query and key rows are stored interleaved for ggml's RoPE.
ARCHITECTURES = {"llama": True, "mistral": True, "qwen2": False, "qwen3": False}

GLOBAL_TENSORS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
ROPE_FACTORS = "rope_freqs.weight"
# Raised whenever the converted folder would come out different, so that old conversions are not reused.
CONVERSION_VERSION = 2
# Beside config.json, and in our own terms: transformers takes two seconds of imports to read the other.
MODEL_CONFIG_FILE = "quest_config.json"


def convert_gguf(path: Path, cache_dir: Path, on_progress: Callable[[str], None] = lambda message: None) -> Path:
    """Convert `path`, or find its conversion in `cache_dir`.

    Returns:
        A folder with config.json, quest_config.json, tokenizer.json and model.safetensors (matrices as float16, the
        precision of the quantised formats' own scales; vectors as float32).

    Raises:
        ValueError: for an architecture the decoder does not implement.
        OSError: if the cache folder cannot be written.
    """
    folder = cache_dir / f"{path.stem}-{_fingerprint(path)}"
    if (folder / "config.json").is_file():
        return folder
    on_progress(f"Converting {path.name} (once)")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _write_folder(path, partial)
    # The finished folder appears in one step, so that an interrupted conversion is never mistaken for one.
    partial.rename(folder)
    return folder


def _write_folder(path: Path, folder: Path) -> None:
    reader = _open_gguf(path)
    architecture = str(reader.fields["general.architecture"].contents())
    if architecture not in ARCHITECTURES:
        raise ValueError(f"GGUF architecture {architecture!r} is not supported; {', '.join(ARCHITECTURES)} are")

    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoTokenizer

    with _parsed_once(path, reader):
        config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    if (head_dim := reader.fields.get(f"{architecture}.attention.key_length")) is not None:
        config.head_dim = int(head_dim.contents())  # transformers takes the family's usual one
    tensors = _read_tensors(reader, config, interleaved=ARCHITECTURES[architecture])
    config.tie_word_embeddings = "lm_head.weight" not in tensors
    if (frequency_factors := tensors.pop(ROPE_FACTORS, None)) is not None:
        # llama.cpp keeps llama3's scaling only as its result; the factor is its largest value, the bands are Meta's.
        config.rope_parameters = {
            "rope_type": "llama3",
            "rope_theta": config.rope_parameters["rope_theta"],
            "factor": float(frequency_factors.max()),
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(folder)
    config.save_pretrained(folder)
    _write_model_config(folder)


def _write_model_config(folder: Path) -> None:
    from transformers import AutoConfig

    # Read back, as transformers completes it from the file.
    with suppress(ValueError):  # of a model that the decoder lacks; whoever loads it is told
        model_config = ModelConfig.from_transformers(AutoConfig.from_pretrained(folder))
        (folder / MODEL_CONFIG_FILE).write_text(model_config.to_json())


def _open_gguf(path: Path) -> Any:
    """A GGUFReader of `path`.

    Raises:
        ValueError: if the file ends too early.
    """
    import numpy as np
    from gguf import GGUFReader

    class QuickReader(GGUFReader):
        # A vocabulary takes some 200,000 of these, and slicing a memory map is the slow way to make an array of it.
        def _get(self, offset: int, dtype: Any, count: int = 1, override_order: str | None = None) -> np.ndarray:
            ordered = np.dtype(dtype).newbyteorder(override_order or self.byte_order)
            try:
                return np.ndarray(int(count), ordered, self.data, int(offset))
            except TypeError as error:
                raise ValueError(f"{path.name} ends too early") from error

    return QuickReader(path)


@contextmanager
def _parsed_once(path: Path, reader: Any) -> Iterator[None]:
    """Inside, whoever opens `path` with the gguf package gets `reader`.

    transformers parses the file anew for the config and for the tokenizer, seconds each for a large vocabulary.
    """
    import gguf

    opens_anew = gguf.GGUFReader
    gguf.GGUFReader = lambda other, *rest: reader if Path(other) == path else opens_anew(other, *rest)
    try:
        yield
    finally:
        gguf.GGUFReader = opens_anew


def _read_tensors(reader: Any, config: Any, interleaved: bool) -> dict[str, Any]:
    import torch
    from gguf import dequantize

    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    tensors = {}
    for tensor in reader.tensors:
        values = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        if tensor.name in GLOBAL_TENSORS:
            name = GLOBAL_TENSORS[tensor.name]
        elif tensor.name.startswith("blk."):
            _, layer, part, kind = tensor.name.split(".")
            if part not in LAYER_TENSORS:
                raise ValueError(f"tensor {tensor.name} has no place in the decoder")
            name = f"model.layers.{layer}.{LAYER_TENSORS[part]}.{kind}"
            if interleaved and part in heads:
                values = _deinterleave_rows(values, heads[part])
        elif tensor.name == ROPE_FACTORS:
            name = ROPE_FACTORS
        else:
            raise ValueError(f"tensor {tensor.name} has no place in the decoder")
        tensors[name] = values.to(torch.float16 if values.dim() > 1 else torch.float32).contiguous()
    return tensors


def _deinterleave_rows(values: Any, heads: int) -> Any:
    """Undo ggml's order of a head's rows (pairs side by side) into the two halves that rotate_half expects."""
    rows = values.shape[0]
    return values.reshape(heads, rows // heads // 2, 2, *values.shape[1:]).transpose(1, 2).reshape(values.shape)


def _fingerprint(path: Path) -> str:
    """Tells one file from another without reading gigabytes: size, head and tail."""
    size = path.stat().st_size
    digest = hashlib.sha256(f"{CONVERSION_VERSION} {size}".encode())
    with path.open("rb") as file:
        digest.update(file.read(1 << 20))
        file.seek(max(0, size - (1 << 20)))
        digest.update(file.read())
    return digest.hexdigest()[:16]
