"""Attention of a chunk of new tokens over itself and all that is cached before it.

On a GPU with fast attention kernels a chunk attends to itself and to the cache by blocks, which are joined by their
log-sum-exp (arXiv 2205.14135, section 3.1): cached pages are brought in order one block at a time, so that memory does
not grow with the context, and the kernels meet few shapes. Elsewhere the whole context is gathered for one call. Knows
nothing of projections or positions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch.backends.cuda import SDPAParams, can_use_cudnn_attention, can_use_flash_attention
from torch.nn.functional import scaled_dot_product_attention

from kernels.contract import Kernels, PartialAttention
from quest_core.cache.paged_kv_cache import SequenceCache
from quest_core.config import ModelConfig

# Joining a block costs about 1 % of its attention, and its keys and values are 128 MiB for 8 kv heads of 128 channels.
BLOCK_TOKENS = 32768
# cuDNN builds a plan for each shape it meets, which takes longer than a short chunk's attention: it gets those lengths
# alone that recur, and flash attention the rest. Before 9.15.1 it was also wrong for others than multiples of 128.
CUDNN_TOKENS = 1024
# Compute capabilities on which torch itself prefers cuDNN: Hopper and data-centre Blackwell.
CUDNN_CAPABILITIES = (9, 10)

# (queries [tokens, query_heads, head_dim], keys and values [context, kv_heads, head_dim], causal, scale of the logits).
# Causal only among as many keys.
Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, bool, float], PartialAttention]


class PrefillAttention(Protocol):
    """What a prefill attends with."""

    def __call__(
        self, layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, cache: SequenceCache
    ) -> torch.Tensor:
        """Attend with new tokens, whose keys and values are in the cache but not yet counted.

        Args:
            layer: of the cache.
            queries: [new_tokens, query_heads, head_dim]; these three may be views, their last dimension contiguous.
            keys, values: [new_tokens, kv_heads, head_dim].
            cache: of the sequence.

        Returns:
            [new_tokens, query_heads * head_dim].
        """
        ...


class GatheredAttention:
    """One call over the whole context, on any device; see `PrefillAttention.__call__`."""

    def __init__(self, scale: float) -> None:
        self._scale = scale

    def __call__(
        self, layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, cache: SequenceCache
    ) -> torch.Tensor:
        all_keys, all_values = cache.gather(layer, cache.length_tokens + len(queries), queries.dtype)
        return prefill_attention(queries, all_keys, all_values, self._scale)


def prefill_attention(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float
) -> torch.Tensor:
    """Causal attention of the last tokens of a sequence over all of it.

    Args:
        queries: [new_tokens, query_heads, head_dim], the last `new_tokens` positions.
        keys, values: [kv_heads, context_tokens, head_dim] in the queries' dtype.
        scale: of the logits.

    Returns:
        [new_tokens, query_heads * head_dim].
    """
    if queries.device.type == "cpu":
        return _prefill_on_cpu(queries, keys.to(queries.dtype), values.to(queries.dtype), scale)
    new_tokens, query_heads, _ = queries.shape
    group = query_heads // keys.shape[0]
    if group > 1:
        keys, values = keys.repeat_interleave(group, dim=0), values.repeat_interleave(group, dim=0)
    # Imported here: it brings torch's compiler, a second's work that only a GPU's first prefill should pay for.
    from torch.nn.attention.bias import causal_lower_right

    mask = causal_lower_right(new_tokens, keys.shape[1])
    attended = scaled_dot_product_attention(
        queries.transpose(0, 1)[None], keys[None], values[None], attn_mask=mask, scale=scale
    )
    return attended[0].transpose(0, 1).reshape(new_tokens, -1)


def _prefill_on_cpu(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float
) -> torch.Tensor:
    """As `prefill_attention`: the new tokens among themselves, and then their prefix, which needs no mask.

    torch's flash kernel skips half of a causal square, but reads all of a mask. Without one, the query heads of a group
    are so many more queries of their kv head, and nothing is repeated. The sums of the exponentials merge the two.
    """
    attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    new_tokens, query_heads, head_dim = queries.shape
    kv_heads, context_tokens, _ = keys.shape
    past_tokens = context_tokens - new_tokens
    by_head = queries.transpose(0, 1)
    new_keys, new_values = (
        each[:, past_tokens:].repeat_interleave(query_heads // kv_heads, dim=0)[None] for each in (keys, values)
    )
    attended, log_sums = attend(by_head[None], new_keys, new_values, 0.0, True, scale=scale)
    if past_tokens > 0:
        folded = by_head.reshape(1, kv_heads, -1, head_dim)
        past, past_log_sums = attend(
            folded, keys[None, :, :past_tokens], values[None, :, :past_tokens], 0.0, False, scale=scale
        )
        new_weight = torch.sigmoid(log_sums - past_log_sums.reshape(log_sums.shape)).unsqueeze(3).to(attended.dtype)
        attended = torch.lerp(past.reshape(attended.shape), attended, new_weight)
    return attended[0].transpose(0, 1).reshape(new_tokens, -1)


class BlockwiseAttention:
    """The chunk over itself and over blocks of the cache, joined; see `PrefillAttention.__call__`.

    Args:
        scale: of the logits.
        kernels: the device's operators.
        attend: a dense attention that tells the log-sum-exp.
        block_tokens: cached tokens gathered at a time, whole pages.
    """

    def __init__(self, scale: float, kernels: Kernels, attend: Attend, block_tokens: int = BLOCK_TOKENS) -> None:
        self._scale = scale
        self._kernels = kernels
        self._attend = attend
        self._block_tokens = block_tokens

    def __call__(
        self, layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, cache: SequenceCache
    ) -> torch.Tensor:
        past_tokens = cache.length_tokens
        merged = self._attend(queries, keys, values, True, self._scale)
        for start in range(0, past_tokens, self._block_tokens):
            end = min(start + self._block_tokens, past_tokens)
            block = self._gather(layer, start, end, cache, queries.dtype)
            part = self._attend(queries, *block, False, self._scale)
            # Between joins nothing is rounded to 16 bits.
            dtype = queries.dtype if end == past_tokens else torch.float32
            # In place from the second block on, so that a long prefix takes no more memory than one of two blocks.
            out = merged if start > 0 and merged.attended.dtype == dtype else None
            merged = self._kernels.merge_attention(merged, part, dtype, out)
        return merged.attended.reshape(len(queries), -1)

    def _gather(
        self, layer: int, start: int, end: int, cache: SequenceCache, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        page_size = cache.pool.page_size
        table = cache.page_table[start // page_size : -(-end // page_size)]
        return self._kernels.gather_pages(cache.pool.layers[layer], table, end - start, dtype)


def attend_with_flash(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, causal: bool, scale: float
) -> PartialAttention:
    """`Attend` with torch's FlashAttention-2."""
    attended, log_sums = torch.ops.aten._scaled_dot_product_flash_attention(
        *_by_heads(queries, keys, values), 0.0, causal, False, scale=scale
    )[:2]
    return PartialAttention(attended[0].transpose(0, 1), log_sums[0])


def attend_with_cudnn(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, causal: bool, scale: float
) -> PartialAttention:
    """`Attend` with cuDNN's attention where both lengths are likely to recur, else with flash attention."""
    if len(queries) % CUDNN_TOKENS or len(keys) % CUDNN_TOKENS:
        return attend_with_flash(queries, keys, values, causal, scale)
    attended, log_sums = torch.ops.aten._scaled_dot_product_cudnn_attention(
        *_by_heads(queries, keys, values), None, True, 0.0, causal, False, scale=scale
    )[:2]
    return PartialAttention(attended[0].transpose(0, 1), log_sums.view(queries.shape[1], len(queries)))


def _by_heads(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """[tokens, heads, head_dim] as torch's attention takes them: [1, heads, tokens, head_dim], without a copy."""
    return tuple(tensor.transpose(0, 1).unsqueeze(0) for tensor in tensors)


def prefill_attention_for(
    config: ModelConfig, device: torch.device, dtype: torch.dtype, kernels: Kernels
) -> PrefillAttention:
    """The fastest way that `device` has for this model and dtype; decided once, by asking torch and by trying."""
    if device.type == "cuda":
        for attend, can_use in ((attend_with_cudnn, _can_use_cudnn), (attend_with_flash, _can_use_flash)):
            if _works(attend, can_use, config, device, dtype):
                return BlockwiseAttention(config.softmax_scale, kernels, attend)
    return GatheredAttention(config.softmax_scale)


def _can_use_cudnn(params: SDPAParams) -> bool:
    capability, _ = torch.cuda.get_device_capability(params.query.device)
    # Lengths that cuDNN does not get go to flash attention.
    return capability in CUDNN_CAPABILITIES and can_use_cudnn_attention(params) and _can_use_flash(params)


def _can_use_flash(params: SDPAParams) -> bool:
    # torch pads other head_dims for its own calls, and not for ours.
    return params.query.shape[-1] % 8 == 0 and can_use_flash_attention(params)


def _works(
    attend: Attend,
    can_use: Callable[[SDPAParams], bool],
    config: ModelConfig,
    device: torch.device,
    dtype: torch.dtype,
) -> bool:
    queries = torch.zeros((CUDNN_TOKENS, config.num_query_heads, config.head_dim), device=device, dtype=dtype)
    keys = torch.zeros((CUDNN_TOKENS, config.num_kv_heads, config.head_dim), device=device, dtype=dtype)
    grouped = config.num_query_heads > config.num_kv_heads
    if not can_use(SDPAParams(*_by_heads(queries, keys, keys), None, 0.0, True, grouped)):
        return False
    try:
        attend(queries, keys, keys, True, config.softmax_scale)
    except RuntimeError:  # cuDNN tells only when it builds a plan that it has none
        return False
    return True
