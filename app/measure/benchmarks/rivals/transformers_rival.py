"""Transformers as the rival: its model, its caches filled at random, the time of its decode steps and prefill."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from quest_core.config import ModelConfig

# Lengths that SDPA's kernels take with a mask.
STATIC_CACHE_MULTIPLE = 64


def load_transformers(
    folder: Path, model_config: ModelConfig, device: torch.device, dtype: torch.dtype
) -> torch.nn.Module:
    """Transformers' own version of the model in `folder`, with the window and positions of `model_config`."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    rope = model_config.rope
    if rope.kind == "yarn":
        config.rope_parameters = {
            "rope_type": "yarn",
            "rope_theta": rope.theta,
            "factor": rope.factor,
            "original_max_position_embeddings": rope.original_max_tokens,
        }
        config.max_position_embeddings = model_config.context_tokens
    model = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=dtype, attn_implementation="sdpa")
    return model.to(device).eval()


def random_dynamic_cache(model: torch.nn.Module, context_tokens: int) -> Any:
    """The cache of Transformers' `generate`, filled."""
    from transformers import DynamicCache

    return _fill(DynamicCache(config=model.config), model, context_tokens)


def random_static_cache(model: torch.nn.Module, context_tokens: int, new_tokens: int) -> Any:
    """A cache of fixed size, which compiled code needs, filled but for `new_tokens`."""
    from transformers import StaticCache

    length = -(-(context_tokens + new_tokens) // STATIC_CACHE_MULTIPLE) * STATIC_CACHE_MULTIPLE
    return _fill(StaticCache(config=model.config, max_cache_len=length), model, context_tokens)


def _fill(cache: Any, model: torch.nn.Module, context_tokens: int) -> Any:
    config = model.config
    shape = (1, config.num_key_value_heads, context_tokens, config.head_dim)
    generator = torch.Generator(model.device).manual_seed(0)
    for layer in range(config.num_hidden_layers):
        keys, values = (
            torch.empty(shape, dtype=model.dtype, device=model.device).normal_(generator=generator) for _ in range(2)
        )
        cache.update(keys, values, layer)
    return cache


def time_decode_steps(model: Any, cache: Any, token: torch.Tensor, steps: int) -> list[float]:
    """Seconds of each greedy step, from one token id on the host to the next; the cache grows by `steps`.

    The caller switches gradients off, by whichever way `model` takes: compiled code may not take inference mode.

    Args:
        model: the model, or what was compiled from it.
        cache: of any kind, holding what came before.
        token: int64 [1, 1], the first to feed.
    """
    times = []
    position = torch.tensor([[int(cache.get_seq_length())]], device=token.device)
    for _ in range(steps):
        start = time.perf_counter()
        # Compiled code would overwrite what its previous call returned.
        torch.compiler.cudagraph_mark_step_begin()
        output = model(token, position_ids=position, past_key_values=cache, use_cache=True)
        token = output.logits[0, -1].argmax().view(1, 1)
        int(token)
        times.append(time.perf_counter() - start)
        position = position + 1
    return times


@torch.inference_mode()
def time_steps_after(model: torch.nn.Module, prefill: Any, steps: int) -> list[float]:
    """Seconds of each greedy step after a prefill, which is what `model` returned; its cache is put back afterwards."""
    cache, token = prefill.past_key_values, prefill.logits[0, -1].argmax().view(1, 1)
    times = time_decode_steps(model, cache, token, steps)
    cache.crop(-steps)
    return times


@torch.inference_mode()
def last_logits(model: torch.nn.Module, prefill: Any, token_ids: list[int]) -> torch.Tensor:
    """The logits after each of some tokens, float32 [tokens, vocab_size].

    Args:
        prefill: what `model` returned for a prompt that ends with them; its cache holds the same afterwards.
        token_ids: fewer than the prompt has.
    """
    cache = prefill.past_key_values
    cache.crop(-len(token_ids))
    ids = torch.tensor([token_ids], device=model.device)
    return model(ids, past_key_values=cache, use_cache=True).logits[0].float()


@torch.inference_mode()
def run_prefill(model: torch.nn.Module, token_ids: list[int]) -> tuple[Any, float]:
    """What `model` returns for a prompt, and the seconds until the logits after its last token are on the host."""
    ids = torch.tensor([token_ids], device=model.device)
    start = time.perf_counter()
    output = model(ids, use_cache=True, logits_to_keep=1)
    int(output.logits[0, -1].argmax())
    return output, time.perf_counter() - start
