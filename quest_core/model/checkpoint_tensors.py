"""Names and shapes of the tensors in a checkpoint of the Llama family, and whether those present agree with a config.

Looks at headers only, so that what a config says is believed before memory is taken for it and not after.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from quest_core.config import ModelConfig

EMBEDDING = "model.embed_tokens.weight"
LAYER_NAME = re.compile(r"model\.layers\.(0|[1-9]\d{0,8})\.(.+)")
# Of AWQ and GPTQ: [groups, rows of the matrix].
SCALES = ".scales"


def check_layers(num_layers: int, names: Iterable[str]) -> None:
    """Hold the number of layers against the names of the tensors that are present.

    Raises:
        ValueError: saying both numbers.
    """
    layers = {int(match[1]) for name in names if (match := LAYER_NAME.fullmatch(name))}
    if layers != set(range(min(num_layers, len(layers) + 1))):
        raise ValueError(f"its config says it has {num_layers} layers, and tensors of {len(layers)} are there")


def check_tensors(config: ModelConfig, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Hold the shapes of the tensors that are present against the config; what is absent or unknown is passed over.

    Raises:
        ValueError: naming the tensor, or the number of layers, and what the config says.
    """
    check_layers(config.num_layers, shapes)
    of_layer = _layer_shapes(config)
    embedding = (("vocab_size", config.vocab_size), ("hidden_size", config.hidden_size))
    of_model = {EMBEDDING: embedding, "lm_head.weight": embedding, "model.norm.weight": embedding[1:]}
    for name, shape in shapes.items():
        match = LAYER_NAME.fullmatch(name)
        part = match[2] if match else name
        table = of_layer if match else of_model
        stated = table.get(part)
        if stated is None and part.endswith(SCALES):
            stated = table.get(part.removesuffix(SCALES) + ".weight")
            shape, stated = shape[1:], stated and stated[:1]
        if stated is not None and tuple(shape) != tuple(size for _, size in stated):
            expected = " x ".join(f"{size} ({meaning})" for meaning, size in stated)
            raise ValueError(f"its tensor {name} is {' x '.join(map(str, shape))}, and its config makes it {expected}")


def _layer_shapes(config: ModelConfig) -> dict[str, tuple[tuple[str, int], ...]]:
    """Tensor of a layer -> what each of its dimensions is, and its size."""
    hidden = ("hidden_size", config.hidden_size)
    inner = ("intermediate_size", config.intermediate_size)
    head = ("head_dim", config.head_dim)
    queries = ("num_attention_heads * head_dim", config.num_query_heads * config.head_dim)
    keys = ("num_key_value_heads * head_dim", config.num_kv_heads * config.head_dim)
    matrices = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    shapes = {f"{name}.weight": dimensions for name, dimensions in matrices.items()}
    shapes |= {f"{name}.bias": dimensions[:1] for name, dimensions in matrices.items()}
    shapes |= {f"{name}.weight": (hidden,) for name in ("input_layernorm", "post_attention_layernorm")}
    return shapes | {f"self_attn.{name}.weight": (head,) for name in ("q_norm", "k_norm")}
