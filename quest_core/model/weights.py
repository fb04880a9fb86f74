"""The decoder's parameters: fused, on one device.

Reads safetensors one tensor at a time into a module built on the meta device (accelerate), and quantises each matrix as
it comes, so that loading needs little more memory than the model. Knows the checkpoint names of the Llama family; knows
nothing of how the tensors are used.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import torch
from accelerate import init_empty_weights
from accelerate.utils import set_module_tensor_to_device
from torch import nn

from kernels.contract import Matrix
from quest_core.config import ModelConfig
from quest_core.errors import ModelError
from quest_core.model.checkpoint_tensors import check_tensors
from quest_core.model.model_folder import open_checkpoint
from quest_core.model.quantization import QuantizedMatrix, quantize, quantize_finely, quantized_bytes
from quest_core.model.quantized_checkpoints import CheckpointPacking, GroupedWeights

# What --weight-bits quantises: the projections, which are nearly all of a model. The embedding stays.
QUANTIZED = ("qkv", "output", "gate_up", "down")
# Of the head where the projections have fewer: it is the largest matrix that a step reads, and all logits hang on it.
HEAD_BITS = 8


def _empty(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape), requires_grad=False)


class LayerWeights(nn.Module):
    """One transformer layer; weights are [out, in], biases [out] or None.

    The matrices named in QUANTIZED become `QuantizedMatrix` when they are loaded in fewer than 16 bits.
    `qkv` stacks the rows of queries, keys and values; `gate_up` those of the gate and the up projection.
    """

    def __init__(self, config: ModelConfig, *, qkv_bias: bool, output_bias: bool) -> None:
        super().__init__()
        query_rows = config.num_query_heads * config.head_dim
        qkv_rows = query_rows + 2 * config.num_kv_heads * config.head_dim
        self.attention_norm = _empty(config.hidden_size)
        self.qkv = _empty(qkv_rows, config.hidden_size)
        self.qkv_bias = _empty(qkv_rows) if qkv_bias else None
        self.query_norm = _empty(config.head_dim) if config.qk_norm else None
        self.key_norm = _empty(config.head_dim) if config.qk_norm else None
        self.output = _empty(config.hidden_size, query_rows)
        self.output_bias = _empty(config.hidden_size) if output_bias else None
        self.mlp_norm = _empty(config.hidden_size)
        self.gate_up = _empty(2 * config.intermediate_size, config.hidden_size)
        self.down = _empty(config.hidden_size, config.intermediate_size)


class DecoderWeights(nn.Module):
    """All parameters; `lm_head` is None when the head is the embedding itself."""

    def __init__(self, config: ModelConfig, *, qkv_bias: bool, output_bias: bool) -> None:
        super().__init__()
        self.embedding = _empty(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            LayerWeights(config, qkv_bias=qkv_bias, output_bias=output_bias) for _ in range(config.num_layers)
        )
        self.final_norm = _empty(config.hidden_size)
        self.lm_head = None if config.tied_embeddings else _empty(config.vocab_size, config.hidden_size)

    @property
    def head(self) -> Matrix:
        """What gives the logits."""
        if isinstance(self.lm_head, QuantizedMatrix):
            return self.lm_head.packed_matrix
        return self.embedding if self.lm_head is None else self.lm_head

    def quantize_head(self) -> None:
        """Give the head HEAD_BITS, or 4 where these lose no more; a tied one becomes a copy beside the embedding."""
        matrix = quantize_finely(self.head)
        del self.lm_head
        self.lm_head = matrix

    @property
    def bytes(self) -> int:
        return sum(parameter.nbytes for parameter in self.parameters())


# Where each parameter comes from: one checkpoint tensor, or several whose rows are stacked.
LAYER_SOURCES = {
    "attention_norm": ("input_layernorm.weight",),
    "qkv": ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"),
    "qkv_bias": ("self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"),
    "query_norm": ("self_attn.q_norm.weight",),
    "key_norm": ("self_attn.k_norm.weight",),
    "output": ("self_attn.o_proj.weight",),
    "output_bias": ("self_attn.o_proj.bias",),
    "mlp_norm": ("post_attention_layernorm.weight",),
    "gate_up": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
    "down": ("mlp.down_proj.weight",),
}
GLOBAL_SOURCES = {
    "embedding": ("model.embed_tokens.weight",),
    "final_norm": ("model.norm.weight",),
    "lm_head": ("lm_head.weight",),
}
# What a matrix may be stored as, in safetensors' words.
PLAIN_TYPES = ("F64", "F32", "F16", "BF16")
# Buffers that old checkpoints carry and that the config states better.
IGNORED_SUFFIXES = ("rotary_emb.inv_freq",)


def load_weights(
    folder: Path, config: ModelConfig, device: torch.device, dtype: torch.dtype, weight_bits: int = 16
) -> DecoderWeights:
    """Read a Hugging Face folder's safetensors.

    Args:
        dtype: of everything that is not quantised.
        weight_bits: of the projections: 16 keeps `dtype`, 8 and 4 quantise them, or take an AWQ or GPTQ checkpoint's
            own values if it has as many bits. With 4 the head has HEAD_BITS, or 4 where these lose no more.

    Raises:
        ModelError: if files or tensors are missing or misshapen, tensors are left over, or memory does not suffice.
    """
    packing = CheckpointPacking.read(folder)
    with ExitStack() as stack:
        checkpoint = open_checkpoint(folder, stack)
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name, file in checkpoint.items()}
        try:
            check_tensors(config, shapes)
        except ValueError as error:
            raise ModelError(f"The model in {folder} does not fit its config: {error}.") from error
        with init_empty_weights():
            weights = DecoderWeights(
                config,
                qkv_bias="model.layers.0.self_attn.q_proj.bias" in checkpoint,
                output_bias="model.layers.0.self_attn.o_proj.bias" in checkpoint,
            )
        _check_memory(weights, device, dtype, weight_bits)
        unread = {name for name in checkpoint if not name.endswith(IGNORED_SUFFIXES)}
        if config.tied_embeddings:
            unread.discard("lm_head.weight")
        for name, parameter in list(weights.named_parameters()):
            sources = sources_of(name)
            packed = [packing.tensors_of(source, checkpoint) for source in sources] if packing else []
            if packed and all(packed):
                sources = tuple(tensor for names in packed for tensor in names)
                try:
                    value = _read_packed(packed, checkpoint, packing, device)
                except ModelError:
                    raise
                except (ValueError, RuntimeError, ZeroDivisionError) as error:
                    raise ModelError(f"The model in {folder} has {' + '.join(sources)} damaged: {error}.") from error
                shape = value.values.shape
            else:
                value = _read_plain(sources, checkpoint, folder)
                shape = value.shape
            if shape != parameter.shape:
                raise ModelError(
                    f"The model in {folder} has {' + '.join(sources)} of shape {tuple(shape)}, expected "
                    f"{tuple(parameter.shape)}."
                )
            unread.difference_update(sources)
            value = value.to(device) if isinstance(value, torch.Tensor) else value
            layer, _, part = name.rpartition(".")
            if weight_bits < 16 and part in QUANTIZED:
                _check_finite(value, sources, folder)
                matrix = _to_matrix(value, weight_bits, packing, device)
                delattr(weights.get_submodule(layer), part)
                setattr(weights.get_submodule(layer), part, matrix)
            else:
                plain = value.dequantize() if isinstance(value, GroupedWeights) else value
                # A copy: one tensor that is taken as it is would keep the whole file mapped.
                placed = plain.to(dtype, copy=True)
                _check_finite(placed, sources, folder)
                set_module_tensor_to_device(weights, name, device, value=placed, dtype=dtype)
        if weight_bits < HEAD_BITS:
            weights.quantize_head()
        # Some GPTQ checkpoints carry a bias of zeros for every matrix.
        unread = {name for name in unread if not (packing and name.endswith(".bias") and _is_zero(name, checkpoint))}
    if unread:
        raise ModelError(
            f"The model in {folder} has {len(unread)} tensors this decoder does not know (first: {min(unread)})."
        )
    return weights.eval()


def _read_plain(sources: tuple[str, ...], checkpoint: dict, folder: Path) -> torch.Tensor:
    try:
        files = [checkpoint[source] for source in sources]
    except KeyError as error:
        raise ModelError(f"The model in {folder} lacks the tensor {error.args[0]}.") from error
    for source, file in zip(sources, files, strict=True):
        if (kind := file.get_slice(source).get_dtype()) not in PLAIN_TYPES:
            raise ModelError(f"The model in {folder} has {source} as {kind}; {', '.join(PLAIN_TYPES)} are read.")
    parts = [file.get_tensor(source) for source, file in zip(sources, files, strict=True)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _check_finite(value: torch.Tensor | GroupedWeights, sources: tuple[str, ...], folder: Path) -> None:
    """Refuse NaN and infinity: one of them makes every answer nothing, and nobody would know why."""
    parts = (value,) if isinstance(value, torch.Tensor) else (value.scales, value.minimums)
    for part in parts:
        # The quickest way on every device: NaN comes out of it as both ends.
        if not torch.stack(torch.aminmax(part)).isfinite().all():
            raise ModelError(
                f"The model in {folder} has numbers in {' + '.join(sources)} that are not finite as {part.dtype}. "
                "Download or copy it again, or choose another --dtype."
            )


def _read_packed(
    packed: list[list[str]], checkpoint: dict, packing: CheckpointPacking, device: torch.device
) -> GroupedWeights:
    parts = []
    for names in packed:
        tensors = {name.rpartition(".")[2]: checkpoint[name].get_tensor(name).to(device) for name in names}
        parts.append(packing.unpack(tensors))
    return GroupedWeights.stack(parts)


def _to_matrix(
    value: torch.Tensor | GroupedWeights, bits: int, packing: CheckpointPacking | None, device: torch.device
) -> QuantizedMatrix:
    if isinstance(value, torch.Tensor):
        return quantize(value.to(device), bits)
    return value.to_matrix(bits) if packing.bits == bits else quantize(value.dequantize(), bits)


def _is_zero(name: str, checkpoint: dict) -> bool:
    return not checkpoint[name].get_tensor(name).any()


def sources_of(name: str) -> tuple[str, ...]:
    """Checkpoint tensors whose rows make up the parameter `name`."""
    if name in GLOBAL_SOURCES:
        return GLOBAL_SOURCES[name]
    _, layer, part = name.split(".")
    return tuple(f"model.layers.{layer}.{source}" for source in LAYER_SOURCES[part])


def planned_bytes(weights: DecoderWeights, dtype: torch.dtype, weight_bits: int) -> int:
    """Bytes that weights will take which may still be on the meta device."""
    needed_bytes = 0
    for name, parameter in weights.named_parameters():
        if weight_bits < 16 and name.rpartition(".")[2] in QUANTIZED:
            needed_bytes += quantized_bytes(*parameter.shape, weight_bits)
        else:
            needed_bytes += parameter.numel() * dtype.itemsize
    if weight_bits < HEAD_BITS:  # beside what it is made from
        needed_bytes += quantized_bytes(*weights.embedding.shape, HEAD_BITS)
    return needed_bytes


def _check_memory(weights: DecoderWeights, device: torch.device, dtype: torch.dtype, weight_bits: int) -> None:
    needed_bytes, free_bytes = planned_bytes(weights, dtype, weight_bits), free_memory_bytes(device)
    if needed_bytes > free_bytes:
        raise ModelError(
            f"The model needs {needed_bytes / 2**30:.1f} GiB on {device} and {free_bytes / 2**30:.1f} GiB are free. "
            "Choose a smaller model, --weight-bits 8 or 4, or a 16-bit --dtype."
        )


def free_memory_bytes(device: torch.device) -> int:
    """Memory that may still be taken on `device`."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available
