"""The short list of models that are worth downloading (`suggested_models.json`), and which this machine can hold.

Knows nothing of the hub: sizes and windows are in the list.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.models.device_memory import DeviceMemory
from quest_core.config import WEIGHT_BITS, EngineConfig, ModelConfig, RopeConfig

if TYPE_CHECKING:
    from quest_core.memory_plan import MemoryPlan

_LIST = Path(__file__).with_name("suggested_models.json")
# Books of 100 and of 50 pages; who wants more asks for more.
REASONABLE_TOKENS = (32768, 16384)
# Two cores read 780 tokens a second with 0.13 billion weights, and as many times fewer with more of them.
SLOW_PARAMETERS, UNBEARABLE_PARAMETERS = 1_000_000_000, 5_000_000_000
_PLENTY_BYTES = 1 << 50


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
        return count_parameters(self.config)


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


def count_parameters(shape: ModelConfig) -> int:
    """How many weights the matrices of a model have."""
    attention = 2 * (shape.num_query_heads + shape.num_kv_heads) * shape.head_dim
    layers = shape.num_layers * shape.hidden_size * (attention + 3 * shape.intermediate_size)
    return layers + shape.vocab_size * shape.hidden_size * (1 if shape.tied_embeddings else 2)


def is_slow(shape: ModelConfig, memory: DeviceMemory) -> bool:
    """Whether reading a document and answering takes long with it: without a GPU every weight costs."""
    return not memory.is_gpu and count_parameters(shape) > SLOW_PARAMETERS


def is_too_slow(shape: ModelConfig, memory: DeviceMemory) -> bool:
    """Whether it takes so long that nobody should be led to try."""
    return not memory.is_gpu and count_parameters(shape) > UNBEARABLE_PARAMETERS


@dataclass(frozen=True)
class Fit:
    """How a model fits a machine.

    Args:
        weight_bits: of its matrices.
        context_tokens: the window.
        needed_bytes: what it takes of the memory then.
    """

    weight_bits: int
    context_tokens: int
    needed_bytes: int


def find_fit(shape: ModelConfig, memory: DeviceMemory, config: EngineConfig) -> Fit | None:
    """The longest reasonable window that fits, and the finest weights beside it; None if nothing does.

    Args:
        shape: of the model.
        memory: there is.
        config: what the engine is loaded with, but for the window and the weights.
    """
    from quest_core.memory_plan import POOL_FRACTION_OF_FREE_MEMORY

    windows = dict.fromkeys(min(shape.context_tokens, tokens) for tokens in REASONABLE_TOKENS)
    for tokens, bits in product(windows, WEIGHT_BITS):
        plan = _plan(shape, replace(config, context_tokens=tokens, weight_bits=bits), memory.device)
        beside_weights = memory.usable_bytes - plan.weights - plan.copies
        if plan.with_one_window <= memory.usable_bytes and plan.window <= (
            beside_weights * POOL_FRACTION_OF_FREE_MEMORY[memory.device]
        ):
            return Fit(bits, tokens, plan.with_one_window)
    return None


@lru_cache(maxsize=256)
def _plan(model: ModelConfig, config: EngineConfig, device_type: str) -> MemoryPlan:
    """What a model takes, on a device with as much memory as one likes: with less, a prefill works in less."""
    import torch

    from quest_core.engine import choose_dtype, choose_kv_dtype
    from quest_core.memory_plan import MemoryPlanner

    device = torch.device(device_type)
    dtype = choose_dtype(config.dtype, device)
    kv_dtype = choose_kv_dtype(config.dtype, device, dtype)
    shape = model.with_context(config.context_tokens)
    planner = MemoryPlanner(shape, config, device_type, dtype, kv_dtype, qkv_bias=shape.family == "qwen2")
    return planner.plan(_PLENTY_BYTES)
