"""A whole decode step in one call against its specification, and that nothing depends on who does the work."""

from __future__ import annotations

import pytest
import torch

import kernels.cpu
from kernels.contract import (
    SUMMARIES,
    CacheLayout,
    LayerCache,
    LayerDecodeWeights,
    PageBudget,
    RopeTables,
    SequenceView,
)
from kernels.cpu_tools.work_sharing import StepThreads, claim
from kernels.reference import NaiveWholeStep
from quest_core.model.quantization import quantize

EPSILON, SCALE = 1e-5, 0.125
LAYERS, HIDDEN, INTERMEDIATE, VOCABULARY, KV_HEADS = 3, 80, 96, 700, 2


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def draw_matrix(weights, out_channels, in_channels, seed):
    matrix = draw(out_channels, in_channels, seed=seed) * in_channels**-0.5
    if isinstance(weights, torch.dtype):
        return matrix.to(weights)
    return quantize(matrix, weights).packed_matrix


def make_layers(weights, group, head_dim, qk_norm=False, bias=False):
    query_rows, qkv_rows = group * KV_HEADS * head_dim, (group + 2) * KV_HEADS * head_dim
    return [
        LayerDecodeWeights(
            1 + 0.1 * draw(HIDDEN, seed=layer),
            draw_matrix(weights, qkv_rows, HIDDEN, layer),
            draw_matrix(weights, HIDDEN, query_rows, layer),
            1 + 0.1 * draw(HIDDEN, seed=9 + layer),
            draw_matrix(weights, 2 * INTERMEDIATE, HIDDEN, layer),
            draw_matrix(weights, HIDDEN, INTERMEDIATE, layer),
            draw(qkv_rows, seed=layer) if bias else None,
            draw(HIDDEN, seed=layer) if bias else None,
            1 + 0.1 * draw(head_dim, seed=layer) if qk_norm else None,
            1 + 0.1 * draw(head_dim, seed=9 + layer) if qk_norm else None,
        )
        for layer in range(LAYERS)
    ]


def make_cache(tokens, head_dim, page_size, dtype, summary, int8):
    """A cache of all layers and a sequence with a permuted table; its summaries are of no keys, as both versions take.

    The last of the sequence's tokens is not in the cache yet.
    """
    layout = CacheLayout(page_size, KV_HEADS, head_dim, dtype, SUMMARIES[summary], torch.int8 if int8 else dtype)
    pages = -(-tokens // page_size)
    shapes = {name: (LAYERS, *spec.shape) for name, spec in layout.specs(pages + 2).items()}
    keys, values = draw(*shapes["key_pages"], seed=1).to(dtype), draw(*shapes["value_pages"], seed=2).to(dtype)
    summaries, scales = draw(*shapes["summaries"], seed=3), None
    if int8:
        summaries = (40 * summaries).clamp(-127, 127)
        scales = torch.rand(shapes["summary_scales"], generator=torch.Generator().manual_seed(4)) / 40
    cache = LayerCache(layout, keys, values, summaries.to(layout.summary_dtype), scales)
    table = torch.randperm(pages + 2, generator=torch.Generator().manual_seed(5))[:pages].int()
    return cache, SequenceView(table, torch.tensor([tokens], dtype=torch.int32))


def run(make_step, layers, cache, sequence, budget, weights, dense_layers=0, rows=1, **options):
    """The outcome of a step of the last `rows` tokens, and a copy of the cache, which it has written to."""
    angles = draw(int(sequence.length_tokens) + 1, cache.layout.head_dim // 2)
    head, rope = draw_matrix(weights, VOCABULARY, HIDDEN, 7), RopeTables(angles.cos(), angles.sin())
    step = make_step(layers, 1 + 0.1 * draw(HIDDEN), head, EPSILON, rope, **options)
    own = LayerCache(cache.layout, *(None if tensor is None else tensor.clone() for tensor in cache[1:]))
    outcome = step(draw(rows, HIDDEN), own, sequence, budget, SCALE, dense_layers)
    if options:
        step.close()
    return outcome, own


def assert_same_step(actual, expected, assert_close, bound):
    (outcome, cache), (wanted, wanted_cache) = actual, expected
    assert_close(outcome.logits, wanted.logits, bound)
    assert outcome.first_layer == wanted.first_layer
    assert (outcome.selected is None) == (wanted.selected is None)
    if wanted.selected is not None:
        selected, wanted_pages = outcome.selected, wanted.selected
        assert torch.equal(selected.page_ids, wanted_pages.page_ids)
        assert torch.equal(selected.page_counts, wanted_pages.page_counts)
        assert (selected.missed_mass is None) == (wanted_pages.missed_mass is None)
        if wanted_pages.missed_mass is not None:
            torch.testing.assert_close(selected.missed_mass, wanted_pages.missed_mass, atol=1e-5, rtol=1e-3)
    assert_close(cache.key_pages.float(), wanted_cache.key_pages.float(), bound)
    assert_close(cache.value_pages.float(), wanted_cache.value_pages.float(), bound)


# Rounding queries to the cache's dtype, as the reference does, is what the two differ in.
BOUNDS = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


@pytest.mark.parametrize(
    ("tokens", "weights"),
    [(0, 4), (1, torch.float32), (15, torch.bfloat16), (16, torch.float16), (300, 8), (2300, 4)],
    ids=str,
)
def test_dense_step(assert_close, tokens, weights):
    cache, sequence = make_cache(tokens + 1, 16, 16, torch.float32, "mean", True)
    arguments = (make_layers(weights, 3, 16), cache, sequence, None, weights)
    assert_same_step(
        run(kernels.cpu.WholeStep, *arguments, threads=2), run(NaiveWholeStep, *arguments), assert_close, 1e-5
    )


@pytest.mark.parametrize(
    ("tokens", "dense_layers", "int8", "summary", "dtype"),
    [
        (63, 0, True, "bounds", torch.float32),
        (300, 1, True, "mean", torch.float32),
        (300, 0, False, "mean", torch.float32),
        (2300, 0, False, "bounds", torch.float32),
        (2300, 0, True, "mean", torch.float32),
        (63, 0, False, "mean", torch.float16),
        (300, 1, True, "bounds", torch.bfloat16),
        (2300, 0, True, "mean", torch.bfloat16),
    ],
    ids=str,
)
def test_step_that_selects_pages(assert_close, tokens, dense_layers, int8, summary, dtype):
    cache, sequence = make_cache(tokens + 1, 16, 4, dtype, summary, int8)
    arguments = (make_layers(8, 3, 16), cache, sequence, PageBudget(40, 1, 1), 8, dense_layers)
    actual, expected = run(kernels.cpu.WholeStep, *arguments, threads=2), run(NaiveWholeStep, *arguments)
    if dtype == torch.float32:
        assert_same_step(actual, expected, assert_close, BOUNDS[dtype])
    else:  # pages of nearly the same importance may change places
        page_ids, expected_ids = (outcome.selected.page_ids for outcome, _ in (actual, expected))
        assert page_ids.shape == expected_ids.shape
        assert (page_ids == expected_ids).float().mean() > 0.5


@pytest.mark.parametrize(("head_dim", "group"), [(16, 1), (20, 5), (64, 3), (64, 4), (16, 8)])
def test_other_shapes_norms_of_heads_and_biases(assert_close, head_dim, group):
    cache, sequence = make_cache(151, head_dim, 8, torch.float32, "mean", True)
    layers = make_layers(torch.float32, group, head_dim, qk_norm=True, bias=True)
    arguments = (layers, cache, sequence, PageBudget(6, 1, 1), torch.float32)
    assert_same_step(
        run(kernels.cpu.WholeStep, *arguments, threads=2), run(NaiveWholeStep, *arguments), assert_close, 1e-5
    )


@pytest.mark.parametrize("budget", [None, PageBudget(64, 1, 1)], ids=["dense", "selecting"])
def test_the_same_bits_with_any_number_of_threads(budget):
    cache, sequence = make_cache(2301, 64, 4, torch.float16, "mean", True)
    arguments = (make_layers(4, 3, 64), cache, sequence, budget, 4, 1)
    alone, _ = run(kernels.cpu.WholeStep, *arguments, threads=1)
    for threads in (2, 4):
        for _ in range(5):
            shared, _ = run(kernels.cpu.WholeStep, *arguments, threads=threads)
            assert torch.equal(shared.logits, alone.logits)
            assert budget is None or torch.equal(shared.selected.page_ids, alone.selected.page_ids)


@pytest.mark.parametrize(
    ("tokens", "rows", "weights", "page_size"),
    [(2, 2, 4, 4), (3, 3, torch.float32, 4), (26, 4, 8, 8), (257, 2, 4, 4), (259, 5, 4, 4), (515, 8, torch.float16, 4),
     (2300, 9, torch.bfloat16, 16)],
    ids=str,
)  # fmt: skip
def test_several_tokens(assert_close, tokens, rows, weights, page_size):
    cache, sequence = make_cache(tokens, 16, page_size, torch.float32, "mean", True)
    arguments = (make_layers(weights, 3, 16, qk_norm=True, bias=True), cache, sequence, None, weights, 0, rows)
    actual, expected = run(kernels.cpu.WholeStep, *arguments, threads=2), run(NaiveWholeStep, *arguments)
    assert actual[0].logits.shape == (rows, VOCABULARY)
    assert_same_step(actual, expected, assert_close, 1e-5)


@pytest.mark.parametrize(
    ("weights", "head_dim", "dtype"),
    [
        (4, 64, torch.float16),
        (8, 64, torch.float16),
        (torch.float32, 64, torch.float16),
        (torch.bfloat16, 80, torch.bfloat16),
        (torch.float16, 128, torch.float32),
    ],
    ids=str,
)
@pytest.mark.parametrize(("tokens", "rows"), [(6, 5), (258, 3), (1030, 8)])
def test_several_tokens_get_the_bits_that_they_get_alone(tokens, rows, weights, head_dim, dtype):
    cache, sequence = make_cache(tokens, head_dim, 4, dtype, "mean", True)
    layers, head = make_layers(weights, 3, head_dim), draw_matrix(weights, VOCABULARY, HIDDEN, 7)
    angles, hidden = draw(tokens, head_dim // 2), draw(rows, HIDDEN)
    step = kernels.cpu.WholeStep(layers, torch.ones(HIDDEN), head, EPSILON, RopeTables(angles.cos(), angles.sin()))
    together, alone = (
        LayerCache(cache.layout, *(None if each is None else each.clone() for each in cache[1:])) for _ in range(2)
    )
    logits = step(hidden, together, sequence, None, SCALE).logits
    for row in range(rows):
        up_to_row = sequence._replace(length_tokens=sequence.length_tokens - (rows - 1 - row))
        assert torch.equal(logits[row], step(hidden[row : row + 1], alone, up_to_row, None, SCALE).logits[0])
    step.close()
    for tensor, other in zip(together.tensors, alone.tensors, strict=True):
        assert torch.equal(tensor, other)


@pytest.mark.parametrize("dense_layers", [0, 1])
def test_pages_that_are_listed(assert_close, dense_layers):
    """As when they are selected, if they are the same; others give something else."""
    cache, sequence = make_cache(301, 64, 4, torch.float32, "mean", True)
    layers, budget = make_layers(8, 3, 64), PageBudget(20, 1, 1)
    head, angles = draw_matrix(8, VOCABULARY, HIDDEN, 7), draw(301, 32)
    arguments = (layers, torch.ones(HIDDEN), head, EPSILON, RopeTables(angles.cos(), angles.sin()))
    steps = kernels.cpu.WholeStep(*arguments), NaiveWholeStep(*arguments)
    selecting = steps[0](draw(1, HIDDEN), cache, sequence, budget, SCALE, dense_layers)
    listed, naive = (
        step(draw(1, HIDDEN), cache, sequence, None, SCALE, dense_layers, selecting.selected) for step in steps
    )
    assert torch.equal(listed.logits, selecting.logits)
    assert_close(naive.logits, selecting.logits, 1e-5)
    fewer = selecting.selected._replace(page_counts=torch.full((KV_HEADS,), 7, dtype=torch.int32))
    listed, naive = (step(draw(1, HIDDEN), cache, sequence, None, SCALE, dense_layers, fewer) for step in steps)
    assert not torch.equal(listed.logits, selecting.logits)
    assert_close(naive.logits, listed.logits, 1e-5)
    steps[0].close()


def test_several_tokens_read_every_page():
    cache, sequence = make_cache(20, 16, 4, torch.float32, "mean", True)
    with pytest.raises(ValueError, match="several tokens read every page"):
        run(kernels.cpu.WholeStep, make_layers(8, 3, 16), cache, sequence, PageBudget(4, 1, 1), 8, rows=2)


@pytest.mark.parametrize("summary", ["mean", "bounds"])
def test_the_same_bits_beside_a_thread_that_stalls_in_each_phase(summary, monkeypatch):
    cache, sequence = make_cache(2301, 64, 4, torch.float16, summary, True)
    arguments = (make_layers(4, 3, 64), cache, sequence, PageBudget(64, 1, 1), 4, 1)
    wanted, wanted_cache = run(kernels.cpu.WholeStep, *arguments, threads=1)

    def run_beside_a_stalled_thread(self, function, attention, shape, shared):
        for phase in range(len(shared.progress)):
            assert claim(shared.progress, phase, 1) == 0
        function(attention, shape, shared)
        # One that comes when all is over changes nothing.
        function(attention, shape, shared)

    monkeypatch.setattr(StepThreads, "run", run_beside_a_stalled_thread)
    outcome, written = run(kernels.cpu.WholeStep, *arguments, threads=1)
    assert torch.equal(outcome.logits, wanted.logits)
    assert torch.equal(outcome.selected.page_ids, wanted.selected.page_ids)
    if summary == "mean":
        assert torch.equal(outcome.selected.missed_mass, wanted.selected.missed_mass)
    for name in ("key_pages", "value_pages", "summaries", "summary_scales"):
        assert torch.equal(getattr(written, name), getattr(wanted_cache, name))


def test_a_table_longer_than_the_sequence(assert_close):
    cache, sequence = make_cache(301, 16, 4, torch.float32, "mean", True)
    layers, budget = make_layers(torch.float32, 3, 16), PageBudget(20, 1, 1)
    longer = sequence._replace(page_table=torch.cat((sequence.page_table, torch.zeros(50, dtype=torch.int32))))
    exact, padded = (
        run(kernels.cpu.WholeStep, layers, cache, view, budget, torch.float32, threads=1)[0]
        for view in (sequence, longer)
    )
    assert torch.equal(exact.logits, padded.logits)


def test_wrong_tensors_are_refused():
    layers = make_layers(torch.float32, 3, 16)
    for matrix in (layers[0].qkv.double(), layers[0].qkv.T):
        with pytest.raises(ValueError, match="a matrix must be"):
            layer, rope = layers[0]._replace(qkv=matrix), RopeTables(draw(4, 8), draw(4, 8))
            kernels.cpu.WholeStep([layer], torch.ones(HIDDEN), draw(9, HIDDEN), EPSILON, rope)


