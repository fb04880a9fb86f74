"""The short list of models that are worth downloading (`suggested_models.json`), and which this machine can hold.

Knows nothing of the hub: sizes and windows are in the list.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from app.models.machine_memory import MachineMemory
from quest_core.config import WEIGHT_BITS, ModelConfig, RopeConfig

_LIST = Path(__file__).with_name("suggested_models.json")
# A book of 100 pages; who wants more asks for more.
REASONABLE_TOKENS = 32768
# Two cores read 780 tokens a second with 0.13 billion weights, and as many times fewer with more of them.
SLOW_PARAMETERS, UNBEARABLE_PARAMETERS = 1_000_000_000, 5_000_000_000
# Scales and minimums of a group of 64 weights, by weight.
_GROUP_BYTES = 4 / 64
# Work space, libraries, and the page's own process.
_OVERHEAD_BYTES = 1 << 30
# A summary beside each page of keys and values.
_SUMMARY_SHARE = 1 / 8


@dataclass(frozen=True)
class SuggestedModel:
    """A model of the list.

    Args:
        model: its hub id.
        name: for people.
        licence: as its model card states it.
        download_bytes: of its files on the hub, rounded.
        window_tokens: that it was made for.
        good_for: a sentence or two.
        config: its shape.
        recommended_for: "gpu" or "cpu" if it is the one to begin with there.
    """

    model: str
    name: str
    licence: str
    download_bytes: int
    window_tokens: int
    good_for: str
    config: ModelConfig
    recommended_for: str = ""

    @property
    def parameters(self) -> int:
        """How many weights it has."""
        matrices, embedding = _weights(self.config)
        return matrices + embedding * (1 if self.config.tied_embeddings else 2)

    @property
    def context_tokens(self) -> int:
        """A window that suits most documents."""
        return min(self.window_tokens, REASONABLE_TOKENS)


@lru_cache(maxsize=1)
def suggested_models() -> tuple[SuggestedModel, ...]:
    """The list, smallest first."""
    return tuple(_read(values) for values in json.loads(_LIST.read_text(encoding="utf-8"))["models"])


def _read(values: dict[str, Any]) -> SuggestedModel:
    shape = values.pop("shape")
    window = values["window_tokens"]
    # What has no part in sizes is as in most models.
    config = ModelConfig(**shape, rms_norm_epsilon=1e-6, rope=RopeConfig(theta=1e6), context_tokens=window)
    return SuggestedModel(**values, config=config)


def is_slow(model: SuggestedModel, memory: MachineMemory) -> bool:
    """Whether reading a document and answering takes long with it: without a GPU every weight costs."""
    return not memory.is_gpu and model.parameters > SLOW_PARAMETERS


def fitting_bits(model: SuggestedModel, memory: MachineMemory) -> tuple[int, int] | None:
    """The finest weights with which a model fits, as (bits, bytes it then needs).

    None if it does not fit, or nobody would have the patience for it here.
    """
    if not memory.is_gpu and model.parameters > UNBEARABLE_PARAMETERS:
        return None
    for bits in WEIGHT_BITS:
        needed = needed_bytes(model.config, bits, memory.is_gpu, model.context_tokens)
        if needed <= memory.usable_bytes:
            return bits, needed
    return None


def needed_bytes(config: ModelConfig, weight_bits: int, is_gpu: bool, context_tokens: int) -> int:
    """About what a model takes of the memory: weights, KV cache, work space.

    Args:
        config: its shape.
        weight_bits: of its matrices; the embedding has 16, and the head 16, or 8 beside 4.
        is_gpu: otherwise 16-bit weights are kept as floats, with copies in 8 bits beside them to decode from.
        context_tokens: of the cache.
    """
    matrices, embedding = _weights(config)
    packed_head = embedding * (1 + _GROUP_BYTES)
    if weight_bits == 16:
        weights = 2 * (matrices + embedding * (1 if config.tied_embeddings else 2))
        weights += 0 if is_gpu else matrices * (1 + _GROUP_BYTES) + packed_head
    else:
        weights = matrices * (weight_bits / 8 + _GROUP_BYTES) + 2 * embedding
        weights += packed_head if weight_bits == 4 else 0 if config.tied_embeddings else 2 * embedding
    token_bytes = 2 * 2 * config.num_layers * config.num_kv_heads * config.head_dim
    return int(weights + token_bytes * context_tokens * (1 + _SUMMARY_SHARE)) + _OVERHEAD_BYTES


def _weights(config: ModelConfig) -> tuple[int, int]:
    """How many weights the layers' matrices have, and the embedding; vectors are hardly any."""
    heads_width = config.num_query_heads * config.head_dim
    kv_width = config.num_kv_heads * config.head_dim
    of_layer = config.hidden_size * (2 * heads_width + 2 * kv_width + 3 * config.intermediate_size)
    return config.num_layers * of_layer, config.vocab_size * config.hidden_size
