"""Models of random weights: ours, Transformers', and sessions whose cache is random too.

Speed does not depend on what a model has learnt. Weights are drawn on the device from a fixed seed; the two engines'
differ from each other, and whether they compute the same is checked elsewhere, on real weights.
"""

from __future__ import annotations

import torch
from torch import nn

from app.errors import UserFacingError
from app.measure.benchmarks.subjects.random_pages import fill_pages
from app.measure.benchmarks.subjects.shapes import ModelShape
from quest_core.config import ModelConfig
from quest_core.decode.attention import kernels_for
from quest_core.model import weights as weights_module
from quest_core.session import Session

STANDARD_DEVIATION = 0.02
SEED = 0


def random_weights(
    config: ModelConfig, device: torch.device, dtype: torch.dtype, weight_bits: int = 16
) -> weights_module.DecoderWeights:
    """Our decoder's parameters, in `dtype` or with quantised projections.

    Raises:
        UserFacingError: if this version does not quantise to `weight_bits`.
    """
    with torch.device("meta"):
        weights = weights_module.DecoderWeights(config, qkv_bias=False, output_bias=False)
    weights = weights.to(dtype).to_empty(device=device)
    _fill_parameters(weights, device)
    if weight_bits != 16:
        _quantize(weights, weight_bits)
    return weights.eval()


def random_transformers_model(
    shape: ModelShape, context_tokens: int, device: torch.device, dtype: torch.dtype
) -> nn.Module:
    """Transformers' own model of the shape, with SDPA."""
    from transformers import AutoModelForCausalLM

    config = shape.transformers_config(context_tokens)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    model = model.to_empty(device=device)
    model.tie_weights()
    # Its frequencies are no parameters, and on the meta device they were never computed.
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config).to(device)
    _fill_parameters(model, device)
    return model.eval()


def fill_session(session: Session, context_tokens: int, vocab_size: int) -> None:
    """Bring an empty session to where a prefill of `context_tokens` tokens would have left it, with a random cache."""
    cache = session.cache
    device = cache.pool.device
    generator = torch.Generator(device).manual_seed(SEED)
    cache.reserve(context_tokens)
    for layer in cache.pool.layers:
        fill_pages(layer, cache.page_table, context_tokens, kernels_for(device), generator)
    cache.advance(context_tokens)
    session.adopt_cache([0] * context_tokens, torch.zeros(vocab_size, device=device))


@torch.no_grad()
def _fill_parameters(module: nn.Module, device: torch.device) -> None:
    generator = torch.Generator(device).manual_seed(SEED)
    for name, parameter in module.named_parameters():
        if "norm" in name:
            parameter.fill_(1.0)
        else:
            parameter.normal_(0.0, STANDARD_DEVIATION, generator=generator)


def _quantize(weights: weights_module.DecoderWeights, bits: int) -> None:
    """Replace what loading would quantise, in place."""
    try:
        from quest_core.model import quantization
    except ImportError:
        raise UserFacingError(f"This version has no {bits}-bit weights; leave --weight-bits at 16.") from None
    for layer in weights.layers:
        for part in weights_module.QUANTIZED:
            matrix = quantization.quantize(getattr(layer, part), bits)
            delattr(layer, part)
            setattr(layer, part, matrix)
    if bits < weights_module.HEAD_BITS:
        weights.quantize_head()
