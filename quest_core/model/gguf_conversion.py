"""Convert a GGUF model once into a Hugging Face folder (config.json, tokenizer, safetensors).

Dequantises with the gguf package; the tokenizer is built by transformers. The tensor names and the interleaved
query/key rows of the llama architecture follow llama.cpp's conversion (docs/gguf in ggml). One tensor is in memory at
a time.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quest_core.config import ModelConfig
from quest_core.model.checkpoint_tensors import check_layers, check_tensors
from quest_core.model.converted_models import find_or_make
from quest_core.model.gguf_config import ARCHITECTURES, GgufMetadata, transformers_config
from quest_core.model.gguf_file import GgufFile, GgufTensor, gguf_name, gguf_parts, read_gguf
from quest_core.model.safetensors_writer import write_safetensors

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
LAYER_NAME = re.compile(r"blk\.(0|[1-9]\d{0,8})\.(\w+)\.(weight|bias)")
ROPE_FACTORS = "rope_freqs.weight"
# Raised whenever the converted folder would come out different, so that old conversions are not reused.
CONVERSION_VERSION = 3
# Of one model, where nobody has chosen it yet.
MAX_PARTS = 512
# Beside config.json, and in our own terms: transformers takes two seconds of imports to read the other.
MODEL_CONFIG_FILE = "quest_config.json"


def convert_gguf(path: Path, cache_dir: Path, on_progress: Callable[[str], None] = lambda message: None) -> Path:
    """Convert the model that `path` is, or is a part of, or find its conversion in `cache_dir`.

    Returns:
        A folder with config.json, quest_config.json, tokenizer.json and model.safetensors (matrices as float16, the
        precision of the quantised formats' own scales; vectors as float32).

    Raises:
        ValueError: for a damaged file, a missing part, or a model the decoder does not implement.
        OSError: if the cache folder cannot be written.
    """
    parts, name = gguf_parts(path), gguf_name(path)
    folder = cache_dir / f"{name}-{_fingerprint(parts)}"
    return find_or_make(
        folder,
        lambda empty: _write_folder(parts, empty),
        on_make=lambda: on_progress(
            f"Converting {name} again, as its converted files are damaged" if folder.exists()
            else f"Converting {name} (once)"
        ),
        on_wait=lambda: on_progress(f"Waiting for another process that converts {name}"),
    )


def read_gguf_headers(path: Path) -> tuple[ModelConfig, dict[str, GgufTensor]]:
    """What the headers of the model say that `path` is, or is a part of; its tensors are not read.

    Returns:
        Its shape, and the tensors without their data by their names in a checkpoint.

    Raises:
        ValueError: for a damaged file, a missing part, or a model the decoder does not implement.
        OSError: if a file cannot be read.
    """
    import numpy as np

    parts = gguf_parts(path)
    if len(parts) > MAX_PARTS:
        raise ValueError(f"it is one of {len(parts)} parts; no model has so many")
    file = read_gguf(parts, headers_only=True)
    # How far llama3's RoPE is stretched, only the tensor says.
    model = _Understood.read(file, None if ROPE_FACTORS not in file.tensors else np.ones(1))
    return model.model_config, {model.names[name]: tensor for name, tensor in model.tensors.items()}


@dataclass(frozen=True)
class _Understood:
    """A GGUF model that the decoder implements.

    Args:
        config: transformers' own.
        tensors: by name, without the factors of RoPE; `names` has their names in a checkpoint.
    """

    metadata: GgufMetadata
    config: Any
    model_config: ModelConfig
    tensors: dict[str, GgufTensor]
    names: dict[str, str]

    @classmethod
    def read(cls, file: GgufFile, factors: Any) -> _Understood:
        metadata = GgufMetadata(file.metadata)
        names = {name: _checkpoint_name(name) for name in file.tensors}
        tensors = {name: tensor for name, tensor in file.tensors.items() if name != ROPE_FACTORS}
        shapes = {names[name]: tensor.shape for name, tensor in tensors.items()}
        check_layers(metadata.whole("block_count"), shapes)
        config = transformers_config(metadata, shapes, factors)
        model_config = ModelConfig.from_transformers(config)
        check_tensors(model_config, shapes)
        _check_vocabulary(file, model_config)
        _check_kinds(file)
        return cls(metadata, config, model_config, tensors, names)


@dataclass(frozen=True)
class _Conversion:
    """How a tensor of the file becomes one of the checkpoint.

    Args:
        heads: whose rows are interleaved; 0 if none are.
    """

    tensor: GgufTensor
    heads: int = 0

    @property
    def dtype(self) -> str:
        return "F16" if len(self.tensor.shape) > 1 else "F32"

    def read(self) -> Any:
        """The numbers, as a numpy array.

        Raises:
            ValueError: if some are not finite, or too large for float16.
        """
        import torch

        values = torch.from_numpy(_dequantize(self.tensor))
        if self.heads:
            values = _deinterleave_rows(values, self.heads)
        values = values.to(torch.float16 if self.dtype == "F16" else torch.float32).contiguous()
        if not torch.stack(torch.aminmax(values)).isfinite().all():
            raise ValueError(f"tensor {self.tensor.name} has numbers that are not finite, or too large for float16")
        return values.numpy()


def _write_folder(parts: tuple[Path, ...], folder: Path) -> None:
    file = read_gguf(parts)
    factors = file.tensors.get(ROPE_FACTORS)
    model = _Understood.read(file, None if factors is None else _dequantize(factors))
    config, model_config = model.config, model.model_config
    heads = {}
    if ARCHITECTURES[model.metadata.architecture]:
        heads = {"attn_q": model_config.num_query_heads, "attn_k": model_config.num_kv_heads}
    conversions = {
        model.names[name]: _Conversion(tensor, heads.get(name.split(".")[-2], 0))
        for name, tensor in model.tensors.items()
    }
    _check_room(folder, conversions)
    tokenizer = _read_tokenizer(parts[0])
    write_safetensors(
        folder / "model.safetensors",
        {name: (each.dtype, each.tensor.shape, each.read) for name, each in conversions.items()},
    )
    tokenizer.save_pretrained(folder)
    _keep_flags(folder / "tokenizer_config.json", file)
    config.save_pretrained(folder)
    (folder / MODEL_CONFIG_FILE).write_text(model_config.to_json(), encoding="utf-8")


def _checkpoint_name(name: str) -> str:
    if name in GLOBAL_TENSORS:
        return GLOBAL_TENSORS[name]
    match = LAYER_NAME.fullmatch(name)
    if match is not None and match[2] in LAYER_TENSORS:
        return f"model.layers.{match[1]}.{LAYER_TENSORS[match[2]]}.{match[3]}"
    if name == ROPE_FACTORS:
        return name
    raise ValueError(f"tensor {name} has no place in the decoder")


def _check_vocabulary(file: GgufFile, config: ModelConfig) -> None:
    tokens = file.metadata["tokenizer.ggml.tokens"]
    if tokens > config.vocab_size:
        raise ValueError(f"it has {tokens} tokens, and its embedding {config.vocab_size} rows")


def _check_kinds(file: GgufFile) -> None:
    import numpy as np
    from gguf import GGML_QUANT_SIZES, dequantize

    for tensor in {tensor.kind: tensor for tensor in file.tensors.values()}.values():
        try:
            dequantize(np.zeros((1, GGML_QUANT_SIZES[tensor.kind][1]), np.uint8), tensor.kind)
        except NotImplementedError as error:
            raise ValueError(f"tensor {tensor.name} is in the format {tensor.kind.name}, which is not read") from error


def _check_room(folder: Path, conversions: dict[str, _Conversion]) -> None:
    import psutil

    needed_bytes = sum(
        math.prod(each.tensor.shape) * (2 if each.dtype == "F16" else 4) for each in conversions.values()
    )
    # In float32, and what is made of it.
    largest_bytes = max(math.prod(each.tensor.shape) for each in conversions.values()) * 8
    rooms = {
        f"on the disk of {folder.parent}": (needed_bytes, shutil.disk_usage(folder).free),
        "in memory": (largest_bytes, psutil.virtual_memory().available),
    }
    for place, (needed, free) in rooms.items():
        if needed > free:
            raise ValueError(
                f"its conversion takes {needed / 2**30:.1f} GiB {place}, and {free / 2**30:.1f} GiB are free"
            )


def _read_tokenizer(path: Path) -> Any:
    from transformers import PreTrainedTokenizerFast

    try:
        return PreTrainedTokenizerFast.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    except Exception as error:  # transformers and tokenizers raise many kinds for a vocabulary they cannot read
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"its tokenizer cannot be built: {reason}") from error


def _keep_flags(path: Path, file: GgufFile) -> None:
    """Say of BOS and EOS what the file says; transformers keeps it in the tokenizer alone."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    if file.metadata.get("tokenizer.ggml.model") == "llama":
        settings["add_bos_token"] = True  # where nothing is said: llama.cpp's rule for a sentencepiece vocabulary
    for name in ("add_bos_token", "add_eos_token"):
        if isinstance(flag := file.metadata.get(f"tokenizer.ggml.{name}"), bool):
            settings[name] = flag
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _dequantize(tensor: GgufTensor) -> Any:
    """float32, and no view of the file."""
    from gguf import dequantize

    values = dequantize(tensor.data.reshape(*tensor.shape[:-1], -1), tensor.kind).reshape(tensor.shape)
    return values if values.flags.writeable else values.copy()


def _deinterleave_rows(values: Any, heads: int) -> Any:
    """Undo ggml's order of a head's rows (pairs side by side) into the two halves that rotate_half expects."""
    rows = values.shape[0]
    return values.reshape(heads, rows // heads // 2, 2, *values.shape[1:]).transpose(1, 2).reshape(values.shape)


def _fingerprint(parts: tuple[Path, ...]) -> str:
    """Tells one model from another without reading gigabytes: size, head and tail of each file."""
    digest = hashlib.sha256(str(CONVERSION_VERSION).encode())
    for path in parts:
        size = path.stat().st_size
        digest.update(f" {size}".encode())
        with path.open("rb") as file:
            digest.update(file.read(1 << 20))
            file.seek(max(0, size - (1 << 20)))
            digest.update(file.read())
    return digest.hexdigest()[:16]
