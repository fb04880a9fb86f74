"""Shapes of well-known models, to measure speed with random weights and without a download."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quest_core.config import ModelConfig

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class ModelShape:
    """A model's architecture without its weights.

    Args:
        name: as given to `--shape`.
        family: transformers' name of the architecture.
        sizes: settings of transformers' configuration of that family.
        rope_theta: base of the rotary frequencies.
    """

    name: str
    family: str
    sizes: dict[str, Any]
    rope_theta: float

    def transformers_config(self, context_tokens: int) -> PretrainedConfig:
        """For transformers, with a window of `context_tokens`: positions cost the same, however they are stretched."""
        from transformers import AutoConfig

        return AutoConfig.for_model(
            self.family,
            **self.sizes,
            rope_parameters={"rope_type": "default", "rope_theta": self.rope_theta},
            max_position_embeddings=context_tokens,
        )

    def model_config(self, context_tokens: int) -> ModelConfig:
        """For our decoder."""
        return ModelConfig.from_transformers(self.transformers_config(context_tokens))


SHAPES = {
    shape.name: shape
    for shape in (
        ModelShape(
            "llama-2-7b",
            "llama",
            {
                "vocab_size": 32000,
                "hidden_size": 4096,
                "intermediate_size": 11008,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "num_key_value_heads": 32,
                "head_dim": 128,
                "tie_word_embeddings": False,
            },
            1e4,
        ),
        ModelShape(
            "llama-3.1-8b",
            "llama",
            {
                "vocab_size": 128256,
                "hidden_size": 4096,
                "intermediate_size": 14336,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "head_dim": 128,
                "tie_word_embeddings": False,
            },
            5e5,
        ),
        ModelShape(
            "qwen3-4b",
            "qwen3",
            {
                "vocab_size": 151936,
                "hidden_size": 2560,
                "intermediate_size": 9728,
                "num_hidden_layers": 36,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "head_dim": 128,
                "tie_word_embeddings": True,
            },
            1e6,
        ),
    )
}
