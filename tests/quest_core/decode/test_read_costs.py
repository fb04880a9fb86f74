"""The choice between reading everything and choosing pages, over measured pairs and along a context that grows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import kernels.cpu
from kernels.contract import SUMMARIES, CacheLayout
from quest_core.config import QuestConfig
from quest_core.decode.attention import DecodeAttention
from quest_core.decode.decode_graph import table_pages_for
from quest_core.decode.read_costs import MANY_PAGES, ChoosingCosts, LayerBytes, costs_for, reading_all_is_not_slower

GPU_COSTS = costs_for("cuda", 4)
WINDOW_TOKENS = 1 << 20
LOST_AT_MOST = 1.02


def layout(kv_heads: int, head_dim: int = 128, page_size: int = 4, summary: str = "mean", bits: int = 8, kv_bits=16):
    """Pages of 4 with means in 8 bits are the default's."""
    dtype = torch.float8_e4m3fn if kv_bits == 8 else torch.bfloat16
    summary_dtype = torch.int8 if bits == 8 else torch.bfloat16
    return CacheLayout(page_size, kv_heads, head_dim, dtype, SUMMARIES[summary], summary_dtype)


DEFAULT, BOUNDS_8, BOUNDS_16 = layout(8), layout(8, 128, 16, "bounds"), layout(8, 128, 16, "bounds", 16)
EMBEDDED = layout(3, 64)
# Whole steps (milliseconds or 1 / (tokens/s)) on an H200 where no other is named, tokens of context: docs/benchmarks.md
# and assets/benchmarks.
GPU_STEPS = [
    (DEFAULT, 8192, 1024, 2.601, 2.613),  # Llama-3.1-8B, 4 bits, on an H100
    (DEFAULT, 16384, 1024, 2.966, 2.707),
    (DEFAULT, 32768, 1024, 3.643, 2.828),
    (DEFAULT, 131072, 1024, 7.756, 3.324),
    (DEFAULT, 8192, 1024, 2.102, 2.211),  # the same on an H200
    (DEFAULT, 32768, 1024, 2.810, 2.412),
    (DEFAULT, 131072, 1024, 5.569, 2.821),
    (layout(32), 32768, 1024, 5.395, 2.607),  # Llama-2-7B, 4 bits
    (DEFAULT, 8192, 1024, 1 / 559, 1 / 530),  # Qwen3-4B, 4 bits
    (DEFAULT, 32768, 1024, 1 / 384, 1 / 430),
    (BOUNDS_16, 8192, 2048, 2.250, 2.272),
    (BOUNDS_16, 8192, 2048, 4.136, 4.135),
    (BOUNDS_16, 32768, 2048, 2.976, 2.357),
    (BOUNDS_8, 8192, 2048, 2.182, 2.168),
    (BOUNDS_8, 32768, 2048, 2.901, 2.238),
    (BOUNDS_8, 131072, 2048, 5.710, 2.382),
    (layout(32, 128, 16, "bounds"), 32768, 2048, 7.254, 4.166),  # Llama-2-7B
]
# One layer's attention in microseconds, H200; the last two H100.
GPU_LAYERS = [
    (DEFAULT, 8192, 1024, 13.5, 15.6),
    (DEFAULT, 16384, 1024, 21.8, 18.2),
    (DEFAULT, 32768, 1024, 37.4, 22.0),
    (DEFAULT, 131072, 1024, 127.9, 33.5),
    (layout(32), 8192, 1024, 36.2, 20.1),
    (layout(32), 16384, 1024, 66.1, 25.7),
    (layout(32), 32768, 1024, 125.6, 33.1),
    (layout(32), 131072, 1024, 477.4, 70.2),
    (BOUNDS_8, 8192, 1024, 13.4, 11.0),
    (BOUNDS_8, 8192, 2048, 13.4, 12.4),
    (BOUNDS_8, 32768, 2048, 36.2, 14.9),
    (BOUNDS_8, 524288, 2048, 484.1, 97.4),
    (BOUNDS_16, 8192, 512, 14.7, 12.9),
    (BOUNDS_16, 8192, 2048, 14.7, 14.8),
    (BOUNDS_16, 8192, 4096, 14.7, 17.2),
    (layout(32, 128, 16, "bounds", 16), 8192, 4096, 35.3, 29.4),
    (layout(8, 128, 16, "bounds", kv_bits=8), 32768, 2048, 42.9, 14.9),
    (BOUNDS_16, 8192, 1024, 25.0, 16.9),
    (BOUNDS_16, 8192, 2048, 25.0, 18.9),
]
# Query heads for each kv head, and dense time over Quest's, of steps of the embedded model on two cores of a Xeon: a
# median of rounds in turn, or the mean of two such.
CPU_STEPS = [
    (EMBEDDED, 3, 1536, 1024, 0.877),
    (EMBEDDED, 3, 2048, 1024, 0.949),
    (EMBEDDED, 3, 2560, 1024, 0.984),
    (EMBEDDED, 3, 3072, 1024, 1.024),
    (EMBEDDED, 3, 4096, 1024, 1.138),
    (EMBEDDED, 3, 5120, 1024, 1.210),
    (EMBEDDED, 3, 6144, 1024, 1.296),
    (EMBEDDED, 3, 7600, 1024, 1.365),
]
# There, of models that are hardly anything but attention, without the trace of what is selected.
CPU_UNTRACED_STEPS = [
    (EMBEDDED, 3, 1280, 1024, 0.766),
    (EMBEDDED, 3, 2048, 1024, 0.833),
    (EMBEDDED, 3, 2560, 1024, 0.938),
    (EMBEDDED, 3, 3072, 1024, 1.084),
    (EMBEDDED, 3, 4096, 1024, 1.301),
    (EMBEDDED, 3, 16384, 1024, 2.669),
    (EMBEDDED, 3, 1056, 256, 0.955),
    (EMBEDDED, 3, 1536, 256, 1.050),
    (EMBEDDED, 3, 2048, 256, 1.127),
    (replace(EMBEDDED, dtype=torch.float32), 3, 1280, 1024, 0.837),
    (replace(EMBEDDED, dtype=torch.float32), 3, 2048, 1024, 1.109),
    (layout(3, 64, 16, "bounds"), 3, 1280, 1024, 0.943),
    (layout(3, 64, 16, "bounds"), 3, 2560, 1024, 1.313),
    (layout(2, 64), 7, 1536, 1024, 0.885),
    (layout(2, 64), 7, 2048, 1024, 1.015),
    (layout(2, 64), 7, 2560, 1024, 1.105),
    (layout(2, 64), 7, 4096, 1024, 1.362),
    (DEFAULT, 4, 1280, 1024, 0.862),
    (DEFAULT, 4, 2048, 1024, 0.930),
    (DEFAULT, 4, 2560, 1024, 1.051),
    (DEFAULT, 4, 3072, 1024, 1.187),
    (DEFAULT, 4, 6144, 1024, 1.898),
    (layout(32), 1, 1280, 1024, 0.713),
    (layout(32), 1, 2048, 1024, 0.885),
    (layout(32), 1, 2560, 1024, 0.949),
    (layout(32), 1, 3072, 1024, 1.162),
    (layout(32), 1, 4096, 1024, 1.272),
]


def choice(cache_layout: CacheLayout, tokens: int, budget: int, costs: ChoosingCosts, table_pages: int | None = None):
    """What "auto" is for a step."""
    quest = QuestConfig("auto", budget)
    attention = DecodeAttention(quest, cache_layout, 1, 1.0, kernels.cpu, costs)
    pages = -(-tokens // cache_layout.page_size)
    return attention.attention_for(pages, table_pages or pages)


def check_choice(chosen: str, dense_time: float, quest_time: float) -> None:
    time = {"dense": dense_time, "quest": quest_time}
    assert time[chosen] <= LOST_AT_MOST * min(time.values())


@pytest.mark.parametrize(("cache_layout", "tokens", "budget", "dense_time", "quest_time"), GPU_STEPS)
def test_no_measured_step_on_a_gpu_takes_the_slower_way(cache_layout, tokens, budget, dense_time, quest_time):
    table_pages = table_pages_for(tokens // cache_layout.page_size, WINDOW_TOKENS // cache_layout.page_size)
    check_choice(choice(cache_layout, tokens, budget, GPU_COSTS, table_pages), dense_time, quest_time)


@pytest.mark.parametrize(("cache_layout", "tokens", "budget", "dense_time", "quest_time"), GPU_LAYERS)
def test_no_measured_layer_on_a_gpu_takes_the_slower_way(cache_layout, tokens, budget, dense_time, quest_time):
    check_choice(choice(cache_layout, tokens, budget, GPU_COSTS), dense_time, quest_time)


@pytest.mark.parametrize(("cache_layout", "group", "tokens", "budget", "dense_over_quest"), CPU_STEPS)
def test_no_measured_step_on_a_cpu_takes_the_slower_way(cache_layout, group, tokens, budget, dense_over_quest):
    check_choice(choice(cache_layout, tokens, budget, costs_for("cpu", group)), dense_over_quest, 1.0)


@pytest.mark.parametrize(("cache_layout", "group", "tokens", "budget", "dense_over_quest"), CPU_UNTRACED_STEPS)
def test_no_measured_shape_on_a_cpu_takes_the_slower_way(cache_layout, group, tokens, budget, dense_over_quest):
    costs = costs_for("cpu", group)._replace(step_bytes=0)
    check_choice(choice(cache_layout, tokens, budget, costs), dense_over_quest, 1.0)


@pytest.mark.parametrize("costs", [costs_for("cpu", 4), GPU_COSTS], ids=["cpu", "gpu"])
@pytest.mark.parametrize("cache_layout", [DEFAULT, layout(32), BOUNDS_8], ids=["default", "many kv heads", "bounds"])
def test_along_a_context_it_changes_once(cache_layout, costs):
    chosen = [choice(cache_layout, tokens, 1024, costs) for tokens in range(512, 200_000, 512)]
    assert chosen[0] == "dense" and chosen[-1] == "quest"
    assert chosen == sorted(chosen)


def test_what_is_within_the_budget_is_read_whole_and_other_settings_are_what_they_say():
    free = ChoosingCosts(summary_factor=0.0)
    assert [choice(DEFAULT, tokens, 1024, free) for tokens in (1024, 1025)] == ["dense", "quest"]
    for setting, read in (("dense", "dense"), ("quest", "quest"), ("exact", "dense")):
        attention = DecodeAttention(QuestConfig(setting), DEFAULT, 1, 1.0, kernels.cpu, free)
        assert [attention.attention_for(pages, 1024) for pages in (1, 1000)] == [read, read]


def test_a_tie_is_dense_because_that_is_exact():
    costs = ChoosingCosts(60, 10, page_bytes=2, further_page_bytes=1, summary_factor=0.5, selected_factor=2.0)
    read = LayerBytes(dense=1000, selected=200, summaries=600, kv_heads=4)
    assert [reading_all_is_not_slower(costs, read, pages) for pages in (99, 100)] == [False, True]
    many = read._replace(dense=1000 + 2 * MANY_PAGES)
    assert [reading_all_is_not_slower(costs, many, MANY_PAGES + pages) for pages in (199, 200)] == [False, True]
