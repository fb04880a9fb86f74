"""Convert a GGUF file once into a Hugging Face folder (config.json, tokenizer, safetensors) and keep it.

Dequantises with the gguf package; the config and the tokenizer are read by transformers. The tensor names and the
interleaved query/key rows of the llama architecture follow llama.cpp's conversion (docs/gguf in ggml).
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
CONVERSION_VERSION = 1


def convert_gguf(path: Path, cache_dir: Path, on_progress: Callable[[str], None] = lambda message: None) -> Path:
    """Convert `path`, or find its conversion in `cache_dir`.

    Returns:
        A folder with config.json, tokenizer.json and model.safetensors (matrices as float16, the precision of the
        quantised formats' own scales; vectors as float32).

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
    from gguf import GGUFReader

    reader = GGUFReader(path)
    architecture = str(reader.fields["general.architecture"].contents())
    if architecture not in ARCHITECTURES:
        raise ValueError(f"GGUF architecture {architecture!r} is not supported; {', '.join(ARCHITECTURES)} are")

    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
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
    AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).save_pretrained(folder)
    config.save_pretrained(folder)


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
