"""Frozen, validated configuration of the engine.

`ModelConfig` describes the transformer, `EngineConfig` what is fixed when a model is loaded, `QuestConfig` and
`SamplingConfig` what may change from one answer to the next. Nothing here touches a device or a file.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from quest_core.value_checks import check_number, check_whole

SUPPORTED_FAMILIES = {
    "llama": "Llama 2, Llama 3.x, SmolLM2",
    "mistral": "Mistral",
    "qwen2": "Qwen2, Qwen2.5",
    "qwen3": "Qwen3 (dense)",
}

# How a step reads the cache, see `QuestConfig`.
AttentionSetting = Literal["auto", "quest", "dense", "exact"]
ATTENTIONS: tuple[AttentionSetting, ...] = get_args(AttentionSetting)
# What pages are chosen by: the mean of their keys, or the bounds of the Quest paper.
SELECTIONS = ("mean", "quest")
PAGE_SIZES = (4, 8, 16, 32, 64)
DTYPES = ("auto", "float32", "bfloat16", "float16")
WEIGHT_BITS = (16, 8, 4)
KV_BITS = (16, 8)
# Far above every model's, and low enough that products of them are numbers a machine can hold.
MAX_DIMENSION = 1 << 24
# Positions are 32-bit in the kernels.
MAX_CONTEXT_TOKENS = (1 << 31) - 1


@dataclass(frozen=True)
class RopeConfig:
    """Rotary position embedding.

    Args:
        theta: base of the frequencies.
        kind: how frequencies are rescaled for contexts longer than the trained window.
        factor: by how much the window is stretched (linear, llama3, yarn).
        original_max_tokens: the trained window (llama3, yarn).
        low_freq_factor, high_freq_factor: llama3's band limits.
        beta_fast, beta_slow: yarn's band limits, in rotations over the trained window.
        attention_factor: yarn's scale on cos and sin; None computes it from `factor`.
        truncate: yarn rounds its band limits outwards to whole dimensions.
    """

    theta: float = 10000.0
    kind: Literal["default", "linear", "llama3", "yarn"] = "default"
    factor: float = 1.0
    original_max_tokens: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    truncate: bool = True

    def __post_init__(self) -> None:
        if self.kind not in ("default", "linear", "llama3", "yarn"):
            raise ValueError(f"RoPE type {self.kind!r} is not supported; default, linear, llama3 and yarn are")
        check_whole("original_max_tokens", self.original_max_tokens, 0, MAX_CONTEXT_TOKENS)
        if self.kind in ("llama3", "yarn") and self.original_max_tokens < 1:
            raise ValueError(f"RoPE type {self.kind!r} needs original_max_tokens, got {self.original_max_tokens}")
        if check_number("RoPE theta", self.theta) <= 1.0:
            raise ValueError(f"RoPE theta must be above 1, got {self.theta}")
        if check_number("RoPE factor", self.factor) < 1.0:
            raise ValueError(f"RoPE factor must be at least 1, got {self.factor}")
        for name in ("low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow", "attention_factor"):
            value = getattr(self, name)
            if value is None and name == "attention_factor":
                continue
            # Within these bounds no step of the scaling overflows.
            if not 1e-6 <= check_number(f"RoPE {name}", value) <= 1e6:
                raise ValueError(f"RoPE {name} must be from 1e-6 to 1e6, got {value}")
        if self.low_freq_factor >= self.high_freq_factor:
            raise ValueError(
                f"RoPE low_freq_factor must be below high_freq_factor, got {self.low_freq_factor} and "
                f"{self.high_freq_factor}"
            )


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a Llama-family decoder. Sizes in elements, windows in tokens.

    `rope` is that of sequences as long as the window. Where the window was stretched, `shorter_ropes` are those of
    shorter sequences, as (longest sequence, RoPE) in ascending order; the first is the model's own.
    """

    family: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_query_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_epsilon: float
    rope: RopeConfig
    context_tokens: int
    tied_embeddings: bool = False
    qk_norm: bool = False
    eos_token_ids: tuple[int, ...] = ()
    shorter_ropes: tuple[tuple[int, RopeConfig], ...] = ()

    def __post_init__(self) -> None:
        for name in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_layers",
            "num_query_heads",
            "num_kv_heads",
            "head_dim",
        ):
            check_whole(name, getattr(self, name), 1, MAX_DIMENSION)
        check_whole("context_tokens", self.context_tokens, 1, MAX_CONTEXT_TOKENS)
        for token_id in self.eos_token_ids:
            # Some say -1 where there is none; a step compares it and finds nothing.
            check_whole("eos_token_id", token_id, -1, MAX_DIMENSION)
        lengths = [tokens for tokens, _ in self.ropes]
        for length in lengths:
            check_whole("the length of a RoPE", length, 1, self.context_tokens)
        if lengths != sorted(set(lengths)):
            raise ValueError(f"the lengths of shorter_ropes must ascend, got {lengths}")
        if not 0.0 < check_number("rms_norm_eps", self.rms_norm_epsilon) < 1.0:
            raise ValueError(f"rms_norm_eps must be above 0 and below 1, got {self.rms_norm_epsilon}")
        if self.num_query_heads % self.num_kv_heads:
            raise ValueError(f"{self.num_query_heads} query heads cannot share {self.num_kv_heads} kv heads evenly")
        if self.head_dim % 2 or self.head_dim > 256:
            raise ValueError(f"head_dim must be even and at most 256, got {self.head_dim}")

    @property
    def softmax_scale(self) -> float:
        return 1.0 / math.sqrt(self.head_dim)

    @classmethod
    def from_transformers(cls, config: Any) -> ModelConfig:
        """Read a `transformers.PretrainedConfig`.

        Raises:
            ValueError: for a family, activation, kind of attention or RoPE type this decoder does not implement, and
                for values that no model has.
        """
        if config.model_type not in SUPPORTED_FAMILIES:
            supported = "; ".join(f"{name} ({models})" for name, models in SUPPORTED_FAMILIES.items())
            raise ValueError(f"Model family {config.model_type!r} is not supported. Supported families: {supported}.")
        if getattr(config, "hidden_act", "silu") != "silu":
            raise ValueError(f"Activation {config.hidden_act!r} is not supported; silu (SwiGLU) is.")
        check_whole("max_position_embeddings", config.max_position_embeddings, 1, MAX_CONTEXT_TOKENS)
        check_whole("num_attention_heads", config.num_attention_heads, 1, MAX_DIMENSION)
        check_whole("hidden_size", config.hidden_size, 1, MAX_DIMENSION)
        eos = config.eos_token_id
        return cls(
            family=config.model_type,
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_layers=config.num_hidden_layers,
            num_query_heads=config.num_attention_heads,
            num_kv_heads=_or_default(getattr(config, "num_key_value_heads", None), config.num_attention_heads),
            head_dim=_or_default(
                getattr(config, "head_dim", None), config.hidden_size // config.num_attention_heads
            ),
            rms_norm_epsilon=config.rms_norm_eps,
            rope=_read_rope(config.rope_parameters, config.max_position_embeddings),
            context_tokens=_read_window(config),
            tied_embeddings=bool(config.tie_word_embeddings),
            qk_norm=config.model_type == "qwen3",
            eos_token_ids=() if eos is None else tuple(eos) if isinstance(eos, (list, tuple)) else (eos,),
        )

    def to_json(self) -> str:
        """For `from_json`; not a transformers config."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> ModelConfig:
        """Read what `to_json` wrote.

        Raises:
            ValueError: if it was written by a version with other fields.
        """
        values = json.loads(text)
        try:
            values["rope"] = RopeConfig(**values["rope"])
            values["shorter_ropes"] = tuple((tokens, RopeConfig(**rope)) for tokens, rope in values["shorter_ropes"])
            values["eos_token_ids"] = tuple(values["eos_token_ids"])
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a model config of this version: {error}") from error

    @property
    def ropes(self) -> tuple[tuple[int, RopeConfig], ...]:
        """(longest sequence in tokens, the RoPE of sequences up to it), shortest first."""
        return (*self.shorter_ropes, (self.context_tokens, self.rope))

    @property
    def trained_tokens(self) -> int:
        """The longest sequence whose positions are as the model was made."""
        return self.ropes[0][0]

    @property
    def rope_factor(self) -> float:
        """By how much `rope` stretches the model's positions; 1 if it is the model's own RoPE."""
        own = self.ropes[0][1]
        return 1.0 if self.rope == own else self.rope.factor

    def with_rope(self, rope: RopeConfig) -> ModelConfig:
        """The same model and window with all positions under `rope`, one of `ropes`."""
        return replace(self, rope=rope)

    def with_context(self, context_tokens: int) -> ModelConfig:
        """The same model with a window of `context_tokens`, stretched by YaRN no further than needed.

        Of a model that is stretched already, the RoPE that its sequences of that length have. A sequence shorter than
        the window is stretched by the power of two that it needs, and not at all within the model's own window.

        Raises:
            ValueError: if the window must grow but the model already carries a RoPE scaling of its own.
        """
        for max_tokens, rope in self.ropes:
            if context_tokens <= max_tokens:
                shorter = tuple(pair for pair in self.shorter_ropes if pair[0] < context_tokens)
                return replace(self, context_tokens=context_tokens, rope=rope, shorter_ropes=shorter)
        if self.rope.kind != "default":
            raise ValueError(
                f"The model reads {self.context_tokens} tokens and already stretches its positions ({self.rope.kind}); "
                f"{context_tokens} tokens are more than it can read."
            )
        shorter, limit_tokens = [(self.context_tokens, self.rope)], 2 * self.context_tokens
        while limit_tokens < context_tokens:
            shorter.append((limit_tokens, self._yarn(limit_tokens)))
            limit_tokens *= 2
        yarn = self._yarn(context_tokens)
        return replace(self, context_tokens=context_tokens, rope=yarn, shorter_ropes=tuple(shorter))

    def _yarn(self, context_tokens: int) -> RopeConfig:
        factor = context_tokens / self.context_tokens
        return replace(self.rope, kind="yarn", factor=factor, original_max_tokens=self.context_tokens)


def _or_default(value: Any, default: Any) -> Any:
    return default if value is None else value


def _read_window(config: Any) -> int:
    """Tokens that the model attends to as this decoder does."""
    window = config.max_position_embeddings
    kinds = set(getattr(config, "layer_types", None) or ())
    if unknown := kinds - {"full_attention", "sliding_attention"}:
        raise ValueError(f"Layers of the type {min(unknown, key=str)!r} are not supported; full attention is.")
    sliding = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if sliding is None or sliding == 0:
        if "sliding_attention" in kinds:
            raise ValueError("layer_types asks for sliding attention, and sliding_window says none.")
        return window
    check_whole("sliding_window", sliding, 1)
    # Inside its sliding window a model's attention is plain causal attention, so the window is the honest limit.
    return min(window, sliding)


def _read_rope(parameters: Any, max_position_tokens: int) -> RopeConfig:
    parameters = _or_default(parameters, {})
    if not isinstance(parameters, dict):
        raise ValueError(f"rope_parameters must be a table of values, got {parameters!r}")

    def read(name: str, default: float | None) -> float | None:
        value = _or_default(parameters.get(name), default)
        return None if value is None else check_number(f"RoPE {name}", value)

    if read("partial_rotary_factor", 1.0) != 1.0:
        raise ValueError("Partial rotary embeddings are not supported.")
    attention_factor = read("attention_factor", None)
    if attention_factor is None and parameters.get("mscale") and parameters.get("mscale_all_dim"):
        raise ValueError("YaRN with mscale and mscale_all_dim is not supported.")
    return RopeConfig(
        theta=read("rope_theta", 10000.0),
        kind=parameters.get("rope_type", "default"),
        factor=read("factor", 1.0),
        original_max_tokens=_or_default(parameters.get("original_max_position_embeddings"), max_position_tokens),
        low_freq_factor=read("low_freq_factor", 1.0),
        high_freq_factor=read("high_freq_factor", 4.0),
        beta_fast=read("beta_fast", 32.0),
        beta_slow=read("beta_slow", 1.0),
        attention_factor=attention_factor,
        truncate=bool(parameters.get("truncate", True)),
    )


@dataclass(frozen=True)
class QuestConfig:
    """How attention reads the KV cache while decoding; may change between turns.

    Args:
        attention: "quest" reads the selected pages, "dense" reads all, "auto" all while that is not slower. "exact"
            gives what "dense" gives, drafted with "quest" where that is faster and the device can.
        token_budget: tokens attended per layer and kv head; rounded down to whole pages.
        dense_layers: the first layers, which always read everything (2 in the paper, for larger models; with this
            selection the embedded one needs none).
        sink_pages: first pages that are always read (0 is the paper).
        recent_pages: full pages before the current one that are always read (0 is the paper).
    """

    attention: AttentionSetting = "quest"
    token_budget: int = 1024
    dense_layers: int = 0
    sink_pages: int = 1
    recent_pages: int = 1

    def __post_init__(self) -> None:
        if self.attention not in ATTENTIONS:
            raise ValueError(f"attention must be one of {', '.join(ATTENTIONS)}, got {self.attention!r}")
        check_whole("token_budget", self.token_budget, 1)
        for name in ("dense_layers", "sink_pages", "recent_pages"):
            check_whole(name, getattr(self, name), 0)

    @property
    def selects(self) -> bool:
        """Whether a step may read selected pages alone."""
        return self.attention in ("auto", "quest")

    def budget_pages(self, page_size: int) -> int:
        """Pages read per layer and kv head.

        Raises:
            ValueError: if the budget cannot hold the pages that are always read.
        """
        pages = self.token_budget // page_size
        always_read = 1 + self.sink_pages + self.recent_pages
        if pages < always_read:
            raise ValueError(
                f"A token budget of {self.token_budget} holds {pages} pages of {page_size} tokens, but {always_read} "
                f"pages ({always_read * page_size} tokens) are always read."
            )
        return pages


@dataclass(frozen=True)
class SamplingConfig:
    """How the next token is drawn. `temperature` 0 is greedy; a `seed` makes a draw repeatable."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    max_new_tokens: int = 512
    stop_token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if check_number("temperature", self.temperature) < 0.0:
            raise ValueError(f"temperature must not be negative, got {self.temperature}")
        if not 0.0 < check_number("top_p", self.top_p) <= 1.0:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")
        check_whole("top_k", self.top_k, 0)
        if not 0.0 <= check_number("min_p", self.min_p) < 1.0:
            raise ValueError(f"min_p must be in [0, 1), got {self.min_p}")
        if check_number("repetition_penalty", self.repetition_penalty) <= 0.0:
            raise ValueError(f"repetition_penalty must be positive, got {self.repetition_penalty}")
        check_whole("max_new_tokens", self.max_new_tokens, 1)
        if self.seed is not None:
            # What torch's generators take.
            check_whole("seed", self.seed, -(1 << 63), (1 << 64) - 1)


@dataclass(frozen=True)
class EngineConfig:
    """What is fixed when a model is loaded.

    Args:
        device: "auto" takes the first CUDA GPU, else the CPU.
        dtype: of weights, activations and KV cache; "auto" is bfloat16 on a GPU. On a CPU it is what multiplies fastest
            for prefill, with packed copies of the weights for decode steps and a float16 cache.
        weight_bits: of the projections; 16 keeps them in `dtype`, 8 and 4 quantise them in groups of input channels.
        page_size: tokens in a KV page, a power of two from 4 to 64.
        selection: what pages are chosen by.
        summary_bits: of each number in a page's summary; 16 keeps them in the cache's own dtype.
        kv_bits: of keys and values in the cache; 16 keeps them in `dtype`, 8 as float8 with a scale for each token and
            kv head, on a GPU only.
        context_tokens: window wanted; None takes the model's own, of the embedded model 16,384.
        prefill_chunk_tokens: tokens between two chances to cancel a prefill; None takes what suits the device.
        cached_contexts: how many full windows the page pool is planned for, memory permitting; on the CPU fewer where
            they are long.
        eager: launch a step's kernels one by one on a GPU, instead of as a CUDA graph.
        offline: never ask the hub.
        cache_dir: where converted models are kept.
        snapshot_dir: where the KV pages of prompts' prefixes are kept on the disk; None keeps none.
        snapshot_bytes: quota of that folder, for all models; None for no limit.
        snapshots_read_only: another process writes there: only read.
    """

    device: Literal["auto", "cuda", "cpu"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    weight_bits: int = 16
    page_size: int = 4
    selection: str = "mean"
    summary_bits: Literal[8, 16] = 8
    kv_bits: Literal[8, 16] = 16
    context_tokens: int | None = None
    prefill_chunk_tokens: int | None = None
    cached_contexts: int = 4
    eager: bool = False
    offline: bool = False
    cache_dir: Path = field(default_factory=lambda: Path.home() / ".cache" / "quest-chat")
    snapshot_dir: Path | None = None
    snapshot_bytes: int | None = None
    snapshots_read_only: bool = False

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cuda", "cpu"):
            raise ValueError(f"device must be auto, cuda or cpu, got {self.device!r}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if self.weight_bits not in WEIGHT_BITS:
            raise ValueError(f"weight_bits must be one of {WEIGHT_BITS}, got {self.weight_bits}")
        if self.page_size not in PAGE_SIZES:
            raise ValueError(f"page_size must be one of {PAGE_SIZES}, got {self.page_size}")
        if self.summary_bits not in (8, 16):
            raise ValueError(f"summary_bits must be 8 or 16, got {self.summary_bits}")
        if self.kv_bits not in KV_BITS:
            raise ValueError(f"kv_bits must be one of {KV_BITS}, got {self.kv_bits}")
        if self.selection not in SELECTIONS:
            raise ValueError(f"selection must be one of {', '.join(SELECTIONS)}, got {self.selection!r}")
        if self.context_tokens is not None:
            check_whole("context_tokens", self.context_tokens, 1, MAX_CONTEXT_TOKENS)
            if self.context_tokens < self.page_size:
                raise ValueError(f"context_tokens must be at least one page, got {self.context_tokens}")
        if self.prefill_chunk_tokens is not None:
            check_whole("prefill_chunk_tokens", self.prefill_chunk_tokens, 1)
        check_whole("cached_contexts", self.cached_contexts, 1)
        if self.snapshot_bytes is not None:
            check_whole("snapshot_bytes", self.snapshot_bytes, 0)
