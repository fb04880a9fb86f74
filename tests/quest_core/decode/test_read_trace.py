"""Counts of what a step read, by hand-made selections: four tokens a page, two kv heads, three layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kernels.contract import SUMMARIES, CacheLayout, SelectedPages
from quest_core.config import QuestConfig
from quest_core.decode.read_trace import ReadTrace

PAGE_SIZE, KV_HEADS, HEAD_DIM, LAYERS = 4, 2, 8, 3
VECTOR_BYTES = HEAD_DIM * 4
LAYOUT = CacheLayout(PAGE_SIZE, KV_HEADS, HEAD_DIM, torch.float32, SUMMARIES["mean"], torch.float32)
ALL = [KV_HEADS] * 6  # of six pages
QUEST = QuestConfig(token_budget=16)


def selected(*page_ids: list[int], missed_mass: list[float] | None = None) -> SelectedPages:
    """The pages that each kv head reads, -1 where it reads fewer than the budget."""
    ids = torch.tensor(page_ids, dtype=torch.int32)
    missed = None if missed_mass is None else torch.tensor(missed_mass)
    return SelectedPages(ids, (ids >= 0).sum(1, dtype=torch.int32), missed)


@pytest.fixture
def trace() -> ReadTrace:
    return ReadTrace(QUEST, LAYOUT, LAYERS)


def test_each_page_is_counted_once_a_kv_head_and_layer(trace):
    trace.note(1, selected([0, 1, 4, 5], [0, 2, 4, 5]))
    trace.note(2, selected([0, 3, 4, 5], [0, 3, 4, 5]))
    reads = trace.finish_step(6)
    assert reads.page_reads.dtype == np.uint8 and reads.kv_heads == KV_HEADS
    # The first layer has selected nothing: it was dense.
    assert reads.page_reads.tolist() == [ALL, [2, 1, 1, 0, 2, 2], [2, 0, 0, 2, 2, 2]]


def test_paddings_are_no_reads(trace):
    """Neither of the last page, which a step always reads, nor of any other."""
    trace.note(0, selected([0, 1, -1, -1], [0, 1, 2, -1]))
    counts = trace.count_pages(6)
    assert counts.layers == [0]
    assert counts.page_reads.tolist() == [[2, 2, 1, 0, 0, 0]]
    trace.note(0, selected([0, 2, -1, -1], [0, -1, -1, -1]))
    assert trace.finish_step(3).page_reads[0].tolist() == [2, 0, 1]


def test_bytes_are_those_of_the_pages_read_and_of_the_summaries_scored(trace):
    trace.note(1, selected([0, 1, 4, 5], [0, 2, 4, 5]))
    trace.note(2, selected([0, 3, -1, -1], [0, 3, 4, -1]))
    page_reads = 2 * 6 + 8 + 5
    keys_and_values = page_reads * 2 * PAGE_SIZE * VECTOR_BYTES
    summaries = 2 * KV_HEADS * 6 * VECTOR_BYTES  # two layers have scored six pages
    assert trace.finish_step(6).kv_bytes == keys_and_values + summaries
    # Where nothing is selected, nothing is scored.
    assert trace.finish_step(6).kv_bytes == LAYERS * 2 * 6 * 2 * PAGE_SIZE * VECTOR_BYTES


@pytest.mark.parametrize(
    ("sink", "recent", "pages", "always"),
    [
        (1, 1, 6, (0, 4, 5)),
        (0, 0, 6, (5,)),  # the paper
        (2, 2, 9, (0, 1, 6, 7, 8)),
        (2, 2, 4, (0, 1, 2, 3)),
        (2, 2, 1, (0,)),
    ],
)
def test_sink_recent_and_current_pages_are_always_read(sink, recent, pages, always):
    quest = QuestConfig(token_budget=64, sink_pages=sink, recent_pages=recent, dense_layers=2)
    trace = ReadTrace(quest, LAYOUT, LAYERS)
    trace.note(2, selected(list(range(pages)), list(range(pages))))
    reads = trace.finish_step(pages)
    assert (reads.always_read_pages, reads.dense_layers) == (always, 2)


def test_the_missed_mass_is_averaged_over_the_layers_that_left_something_out(trace):
    trace.note(1, selected([0, 1, 4, 5], [0, 2, 4, 5], missed_mass=[0.1, 0.3]))
    trace.note(2, selected([0, 3, 4, 5], [0, 3, 4, 5], missed_mass=[0.5, 0.7]))
    assert trace.finish_step(6).missed_mass == pytest.approx(0.4)
    # Scores that are no logits estimate none, and a step that reads everything misses none.
    trace.note(1, selected([0, 1, 4, 5], [0, 2, 4, 5]))
    assert trace.finish_step(6).missed_mass is None
    assert trace.finish_step(6).missed_mass is None


def test_where_no_layer_chose_all_of_them_are_dense(trace):
    trace.note(1, selected([0, 1, 4, 5], [0, 2, 4, 5]))
    assert (trace.finish_step(6).dense_layers, trace.finish_step(6).dense_layers) == (0, LAYERS)


def test_a_finished_step_is_not_counted_again(trace):
    trace.note(1, selected([0, 5, -1, -1], [0, 5, -1, -1]))
    assert trace.finish_step(6).page_reads[1].tolist() == [2, 0, 0, 0, 0, 2]
    assert trace.count_pages(6) is None
    assert trace.finish_step(6).page_reads.tolist() == [ALL] * LAYERS


def test_counts_over_a_longer_table_are_cut_to_the_pages_there_are(trace):
    """As a captured step leaves them on the device, which knows no length."""
    trace.note(2, selected([0, 1, -1, -1], [0, 5, -1, -1]))
    counts = trace.count_pages(32)
    assert counts.page_reads.dtype == torch.uint8 and counts.page_reads.shape == (1, 32)
    reads = trace.describe(6, counts.layers, counts.page_reads.numpy(), 0.25)
    assert reads.page_reads.tolist() == [ALL, ALL, [2, 1, 0, 0, 0, 1]]
    assert reads.missed_mass == 0.25
