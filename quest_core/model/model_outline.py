"""What the headers of a model's files say, so that one can tell of it before anybody loads it.

Reads config.json and the headers of safetensors and GGUF files, never a tensor. The files may come from anywhere: each
is held against a limit before it is read, and what is wrong with one becomes the sentence that loading would end with.
"""

from __future__ import annotations

import json
import math
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from quest_core.config import ModelConfig
from quest_core.errors import ModelError
from quest_core.model.checkpoint_tensors import check_tensors
from quest_core.model.gguf_conversion import MODEL_CONFIG_FILE, read_gguf_headers
from quest_core.model.gguf_file import gguf_parts
from quest_core.model.model_folder import CONFIG, INDEX, check_inside, checkpoint_files, read_model_config
from quest_core.model.quantized_checkpoints import CheckpointPacking
from quest_core.model.weights import GLOBAL_SOURCES, LAYER_SOURCES, PLAIN_TYPES, QUANTIZED, DecoderWeights, sources_of

# Of files that are read as a whole. The index of the largest models has 2 MB, a header of safetensors as much.
MAX_CONFIG_BYTES, MAX_INDEX_BYTES, MAX_HEADER_BYTES = 1 << 20, 16 << 20, 16 << 20
MAX_FILES, MAX_LAYERS = 512, 1024
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
# Formats of GGUF whose numbers 4 bits with a scale and a minimum for every 32 hold as they are.
FOUR_BIT_KINDS = ("Q4_0", "Q4_1", "Q4_K")
_NO_MODEL = "it holds no config.json, so it is no model's folder"


@dataclass(frozen=True)
class ModelOutline:
    """A model, going by its headers.

    Args:
        config: its shape and window.
        file_bytes: of its weights' files.
        parameters: numbers in its tensors.
        format: how the weights are stored, e.g. "BF16", "Q4_K" or "awq, 4 bits".
        qkv_bias, output_bias: which biases it has.
        layers_in_4_bits: of a matrix of the layers, by name, or of the "head" (0 or 1): in how many layers a copy in 4
            bits is as good as one in 8.
        is_converted_first: whether its tensors are written anew before they are loaded for the first time.
    """

    config: ModelConfig
    file_bytes: int
    parameters: int
    format: str
    qkv_bias: bool = False
    output_bias: bool = False
    layers_in_4_bits: Mapping[str, int] = field(default_factory=dict)
    is_converted_first: bool = False


def read_outline(path: Path) -> ModelOutline:
    """The outline of a folder in Hugging Face layout, or of a .gguf file.

    Raises:
        ModelError: saying what is missing, damaged or not supported, as loading would.
    """
    try:
        return _of_gguf(path) if path.suffix.lower() == ".gguf" else _of_folder(path)
    except ModelError:
        raise
    except OSError as error:
        raise ModelError(f"{error.filename or path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError, OverflowError, MemoryError) as error:
        raise ModelError(f"{path.name} cannot be read as a model: {error or type(error).__name__}.") from error


def _of_gguf(path: Path) -> ModelOutline:
    _check_size(path, None)
    config, tensors = read_gguf_headers(path)
    _check_layers(path, config)
    kinds = {name: tensor.kind.name for name, tensor in tensors.items()}
    matrices = [kinds[name] for name, tensor in tensors.items() if len(tensor.shape) > 1]
    parameters = sum(math.prod(tensor.shape) for tensor in tensors.values())
    return ModelOutline(
        config,
        sum(part.stat().st_size for part in gguf_parts(path)),
        parameters,
        max(sorted(set(matrices)), key=matrices.count, default=""),
        **_biases(kinds),
        layers_in_4_bits=_count_4_bits(config, {name for name, kind in kinds.items() if kind in FOUR_BIT_KINDS}),
        is_converted_first=True,
    )


def _of_folder(folder: Path) -> ModelOutline:
    if not (folder / CONFIG).is_file():
        raise ModelError(f"{folder.name} cannot be used: {_NO_MODEL}.")
    for name, limit in ((CONFIG, MAX_CONFIG_BYTES), (MODEL_CONFIG_FILE, MAX_CONFIG_BYTES), (INDEX, MAX_INDEX_BYTES)):
        if (folder / name).exists():
            check_inside(folder, folder / name)
            _check_size(folder / name, limit)
    config = read_model_config(folder)
    _check_layers(folder, config)
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise ModelError(f"The model in {folder} has no tokenizer: {TOKENIZERS[0]} is missing.")
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    names = checkpoint_files(folder)
    if len(names) > MAX_FILES:
        raise ModelError(f"The model in {folder} has its weights in {len(names)} files; no model has so many.")
    for name in names:
        if not (folder / name).is_file():
            hint = "; only safetensors are read, not pickled .bin files" if any(folder.glob("*.bin")) else ""
            raise ModelError(f"The model folder {folder} lacks {name}{hint}.")
        check_inside(folder, folder / name)
        tensors |= _safetensors_header(folder / name)
    packing = CheckpointPacking.read(folder)
    shapes = {name: shape for name, (_, shape) in tensors.items()}
    try:
        check_tensors(config, shapes)
    except ValueError as error:
        raise ModelError(f"The model in {folder} does not fit its config: {error}.") from error
    packed = {name for name in _wanted(config, tensors) if packing and packing.tensors_of(name, tensors)}
    _check_present(folder, config, tensors, packed)
    kinds = [kind for kind, shape in tensors.values() if len(shape) > 1]
    return ModelOutline(
        config,
        sum((folder / name).stat().st_size for name in names),
        _parameters(config, tensors),
        f"{packing.method}, {packing.bits} bits" if packing else max(sorted(set(kinds)), key=kinds.count, default=""),
        **_biases(tensors),
        layers_in_4_bits=_count_4_bits(config, packed if packing and packing.bits == 4 else set()),
    )


def _check_size(path: Path, limit: int | None) -> None:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ModelError(f"{path} is no file.")
    if limit is not None and found.st_size > limit:
        raise ModelError(f"{path} has {found.st_size:,} bytes, more than any model's.")


def _check_layers(path: Path, config: ModelConfig) -> None:
    if config.num_layers > MAX_LAYERS:
        raise ModelError(f"{path} says that it has {config.num_layers:,} layers; no model has so many.")


def _safetensors_header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> kind and shape of each tensor of a file, of which the header alone is read."""
    size = path.stat().st_size
    again = "Download or copy it again."
    with path.open("rb") as file:
        first = file.read(8)
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else size
        if length > min(MAX_HEADER_BYTES, size - 8):
            raise ModelError(f"{path} is damaged or incomplete ({size:,} bytes). {again}")
        header = file.read(length)
    try:
        described = json.loads(header)
        described.pop("__metadata__", None)
        tensors, end = {}, 0
        for name, tensor in described.items():
            kind, shape, (_, tensor_end) = str(tensor["dtype"]), tuple(tensor["shape"]), tensor["data_offsets"]
            if any(type(length) is not int or length < 0 for length in shape) or type(tensor_end) is not int:
                raise ValueError(f"{name} has no shape")
            tensors[name], end = (kind, shape), max(end, tensor_end)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path} is damaged: its header cannot be read. {again}") from error
    if 8 + length + end != size:
        raise ModelError(f"{path} is incomplete: {size:,} of {8 + length + end:,} bytes are there. {again}")
    return tensors


def _biases(names: Mapping[str, object]) -> dict[str, bool]:
    layer = "model.layers.0.self_attn."
    return {"qkv_bias": f"{layer}q_proj.bias" in names, "output_bias": f"{layer}o_proj.bias" in names}


def _wanted(config: ModelConfig, names: Mapping[str, object]) -> list[str]:
    """The checkpoint's tensors that the decoder asks for."""
    with torch.device("meta"):
        weights = DecoderWeights(config, **_biases(names))
    return [source for name, _ in weights.named_parameters() for source in sources_of(name)]


def _check_present(
    folder: Path, config: ModelConfig, tensors: Mapping[str, tuple[str, tuple[int, ...]]], packed: set[str]
) -> None:
    for name in _wanted(config, tensors):
        if name in packed:
            continue
        if name not in tensors:
            raise ModelError(f"The model in {folder} lacks the tensor {name}.")
        if (kind := tensors[name][0]) not in PLAIN_TYPES:
            raise ModelError(f"The model in {folder} has {name} as {kind}; {', '.join(PLAIN_TYPES)} are read.")


def _parameters(config: ModelConfig, names: Mapping[str, object]) -> int:
    with torch.device("meta"):
        weights = DecoderWeights(config, **_biases(names))
    return sum(parameter.numel() for parameter in weights.parameters())


def _count_4_bits(config: ModelConfig, in_4_bits: set[str]) -> dict[str, int]:
    """For each matrix of the layers, and the head, in how many layers all that it is stacked from is in 4 bits."""
    if not in_4_bits:
        return {}
    counts = {
        name: sum(
            all(f"model.layers.{layer}.{source}" in in_4_bits for source in LAYER_SOURCES[name])
            for layer in range(config.num_layers)
        )
        for name in QUANTIZED
    }
    head = GLOBAL_SOURCES["embedding" if config.tied_embeddings else "lm_head"][0]
    return counts | {"head": int(head in in_4_bits)}
