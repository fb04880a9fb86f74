"""A model's config from the metadata of its GGUF file, in transformers' terms.

Keys and defaults, those of RoPE scaling among them, are llama.cpp's (`load_hparams` in its model loader). What the
decoder cannot do is refused by the key's name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from quest_core.config import MAX_CONTEXT_TOKENS, MAX_DIMENSION
from quest_core.value_checks import check_number, check_whole

# GGUF architecture -> whether its query and key rows are stored interleaved for ggml's RoPE.
ARCHITECTURES = {"llama": True, "mistral": True, "qwen2": False, "qwen3": False}
ARCHITECTURE = "general.architecture"
TOKENS = "tokenizer.ggml.tokens"
SPECIAL_TOKENS = ("bos", "eos", "eot", "unknown", "padding")
# llama.cpp's own defaults.
DEFAULT_THETA = 10000.0
# Trained window and bands of llama3's scaling: Meta's, for all models that have it.
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


class GgufMetadata:
    """Looks up values by their key behind the architecture's name, and checks them.

    Raises:
        ValueError: for an architecture the decoder does not implement.
    """

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self._metadata = metadata
        self.architecture = metadata.get(ARCHITECTURE)
        if self.architecture not in tuple(ARCHITECTURES):
            raise ValueError(
                f"GGUF architecture {self.architecture!r} is not supported; {', '.join(ARCHITECTURES)} are"
            )

    def __contains__(self, key: str) -> bool:
        return f"{self.architecture}.{key}" in self._metadata

    def _look_up(self, key: str, default: Any) -> tuple[str, Any]:
        name = f"{self.architecture}.{key}"
        value = self._metadata.get(name, default)
        if value is None:
            raise ValueError(f"{name} is missing")
        return name, value

    def whole(self, key: str, default: int | None = None, minimum: int = 1, maximum: int = MAX_DIMENSION) -> int:
        """A whole number; of a list with one for each layer the one that they all have.

        Raises:
            ValueError: if it is missing, something else, or not the same in all layers.
        """
        name, value = self._look_up(key, default)
        if hasattr(value, "tolist"):
            of_layers = set(value.tolist())
            if len(of_layers) != 1:
                raise ValueError(f"{name} is not the same in all layers, which is not supported")
            value = of_layers.pop()
        check_whole(name, value, minimum, maximum)
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number.

        Raises:
            ValueError: if it is missing or something else.
        """
        return check_number(*self._look_up(key, default))

    def text(self, key: str, default: str) -> str:
        """A text.

        Raises:
            ValueError: if it is something else.
        """
        name, value = self._look_up(key, default)
        if not isinstance(value, str):
            raise ValueError(f"{name} must be a text, got {value!r}")
        return value

    def special_token_ids(self) -> dict[str, int]:
        """bos, eos, eot, unknown and padding -> token id, where the file names one.

        Raises:
            ValueError: if it is not a token of the vocabulary.
        """
        tokens = self._metadata.get(TOKENS)
        check_whole(f"the number of {TOKENS}", tokens, 1)
        ids = {}
        for name in SPECIAL_TOKENS:
            key = f"tokenizer.ggml.{name}_token_id"
            if (token_id := self._metadata.get(key)) is not None:
                check_whole(key, token_id, 0, tokens - 1)
                ids[name] = token_id
        return ids


def transformers_config(metadata: GgufMetadata, shapes: Mapping[str, tuple[int, ...]], factors: Any = None) -> Any:
    """The config that config.json is to hold.

    Args:
        metadata: of the file.
        shapes: of the tensors, by their names in a checkpoint.
        factors: llama.cpp's `rope_freqs.weight`, by which each of RoPE's wavelengths is stretched, or None.

    Raises:
        ValueError: naming a key whose value no model has, or that asks for what the decoder cannot do.
    """
    from transformers import AutoConfig

    heads, hidden_size = metadata.whole("attention.head_count"), metadata.whole("embedding_length")
    head_dim = metadata.whole("attention.key_length", hidden_size // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if metadata.whole(key, head_dim) != head_dim:
            raise ValueError(f"{metadata.architecture}.{key} must be the size of a head, {head_dim}")
    context_tokens = metadata.whole("context_length", maximum=MAX_CONTEXT_TOKENS)
    sliding_window = metadata.whole("attention.sliding_window", 0, minimum=0, maximum=MAX_CONTEXT_TOKENS)
    vocab_size = shapes.get("model.embed_tokens.weight", (0,))[0]
    special = metadata.special_token_ids()
    ends = [special[name] for name in ("eos", "eot") if name in special]
    return AutoConfig.for_model(
        metadata.architecture,
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=metadata.whole("feed_forward_length"),
        num_hidden_layers=metadata.whole("block_count"),
        num_attention_heads=heads,
        num_key_value_heads=metadata.whole("attention.head_count_kv", heads),
        head_dim=head_dim,
        rms_norm_eps=metadata.number("attention.layer_norm_rms_epsilon"),
        max_position_embeddings=context_tokens,
        rope_parameters=_rope_parameters(metadata, context_tokens, factors),
        # As with config.json: the sliding window limits how much is read at once.
        sliding_window=sliding_window or None,
        use_sliding_window=sliding_window > 0,
        bos_token_id=special.get("bos"),
        eos_token_id=ends[0] if len(set(ends)) == 1 else ends or None,
        pad_token_id=special.get("padding"),
        tie_word_embeddings="lm_head.weight" not in shapes,
    )


def _rope_parameters(metadata: GgufMetadata, context_tokens: int, factors: Any) -> dict[str, Any]:
    parameters: dict[str, Any] = {"rope_theta": metadata.number("rope.freq_base", DEFAULT_THETA)}
    kind = metadata.text("rope.scaling.type", "linear")
    if kind not in ("none", "linear", "yarn"):
        raise ValueError(f"{metadata.architecture}.rope.scaling.type {kind!r} is not supported; linear and yarn are")
    # The second is the key of older files. 0 and 1 are no scaling, and so is every factor under "none".
    factor = metadata.number("rope.scaling.factor", metadata.number("rope.scale_linear", 0.0)) or 1.0
    if factor < 1.0:
        raise ValueError(f"{metadata.architecture}.rope.scaling.factor must be at least 1, got {factor}")
    if kind == "none" or (kind == "linear" and factor == 1.0):
        kind, factor = "default", 1.0
    magnitude = metadata.number("rope.scaling.attn_factor", 1.0) * metadata.number("rope.scaling.yarn_attn_factor", 1.0)
    if kind != "yarn" and magnitude != 1.0:
        raise ValueError(f"{metadata.architecture}.rope.scaling.attn_factor {magnitude} is supported with yarn only")
    if factors is not None:
        if kind != "default":
            raise ValueError(f"{metadata.architecture}.rope.scaling.type {kind!r} beside rope_freqs is not supported")
        # llama.cpp keeps llama3's scaling only as its result; the factor is its largest value.
        return parameters | {"rope_type": "llama3", "factor": float(factors.max())} | LLAMA3
    if kind == "yarn":
        parameters |= _yarn_parameters(metadata, context_tokens, factor, magnitude)
    return parameters | {"rope_type": kind} | ({} if kind == "default" else {"factor": factor})


def _yarn_parameters(metadata: GgufMetadata, context_tokens: int, factor: float, magnitude: float) -> dict[str, Any]:
    # A negative one is llama.cpp's "by the type"; a fraction would mix YaRN with linear interpolation.
    mixed = metadata.number("rope.scaling.yarn_ext_factor", 1.0)
    if 0.0 <= mixed != 1.0:
        raise ValueError(f"{metadata.architecture}.rope.scaling.yarn_ext_factor {mixed} is not supported; 1 is")
    if metadata.number("rope.scaling.yarn_log_multiplier", 0.0) != 0.0:
        raise ValueError(f"{metadata.architecture}.rope.scaling.yarn_log_multiplier is not supported")
    original = metadata.whole("rope.scaling.original_context_length", context_tokens, maximum=MAX_CONTEXT_TOKENS)
    bands = {
        "beta_fast": metadata.number("rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": metadata.number("rope.scaling.yarn_beta_slow", 1.0),
    }
    parameters = {"original_max_position_embeddings": original} | bands
    if magnitude == 1.0:
        return parameters  # transformers and llama.cpp compute it from the factor, alike
    return parameters | {"attention_factor": magnitude * (0.1 * math.log(factor) + 1.0)}
