"""A whole decode step in one call against its specification, and that nothing depends on who does the work."""

from __future__ import annotations

import pytest
import torch

import kernels.cpu
from kernels.reference import LayerOperands, NaiveWholeStep, PageChoice, StepPages
from quest_core.quantization import quantize

EPSILON, SCALE = 1e-5, 0.125
LAYERS, HIDDEN, INTERMEDIATE, VOCABULARY, KV_HEADS = 3, 80, 96, 700, 2


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def draw_matrix(weights, out_channels, in_channels, seed):
    matrix = draw(out_channels, in_channels, seed=seed) * in_channels**-0.5
    if isinstance(weights, torch.dtype):
        return matrix.to(weights)
    return quantize(matrix, weights).operand


def make_layers(weights, group, head_dim, qk_norm=False, bias=False):
    query_rows, qkv_rows = group * KV_HEADS * head_dim, (group + 2) * KV_HEADS * head_dim
    return [
        LayerOperands(
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


def make_pages(tokens, head_dim, page_size, dtype, summary, int8):
    """A cache of `tokens` with a permuted table; its summaries are of no keys, which both versions take."""
    pages = -(-(tokens + 1) // page_size)
    shape = (LAYERS, pages + 2, KV_HEADS, page_size, head_dim)
    vectors = (*shape[:3], 1 if summary == "mean" else 2)
    summaries = draw(*vectors, head_dim, seed=3)
    if int8:
        summaries = (40 * summaries).clamp(-127, 127).to(torch.int8)
    scales = torch.rand(vectors, generator=torch.Generator().manual_seed(4)) / 40 if int8 else None
    table = torch.randperm(pages + 2, generator=torch.Generator().manual_seed(5))[:pages].int()
    store = summaries if int8 else summaries.to(dtype)
    return StepPages(draw(*shape, seed=1).to(dtype), draw(*shape, seed=2).to(dtype), store, scales, summary), table


def run(make_step, layers, pages, table, tokens, choice, weights, head_dim, **options):
    angles = draw(tokens + 2, head_dim // 2)
    step = make_step(
        layers, 1 + 0.1 * draw(HIDDEN), draw_matrix(weights, VOCABULARY, HIDDEN, 7), EPSILON, angles.cos(),
        angles.sin(), **options,
    )  # fmt: skip
    own = StepPages(*(None if part is None or isinstance(part, str) else part.clone() for part in pages[:4]), pages[4])
    start = torch.tensor([tokens], dtype=torch.int32)
    outcome = step(draw(1, HIDDEN), own, table, start, SCALE, choice)
    if options:
        step.close()
    return outcome, own


def assert_same_step(actual, expected, assert_close, bound):
    (outcome, pages), (wanted, wanted_pages) = actual, expected
    assert_close(outcome.logits, wanted.logits, bound)
    assert torch.equal(outcome.page_ids, wanted.page_ids)
    assert outcome.first_layer == wanted.first_layer
    if len(wanted.page_ids):
        assert torch.equal(outcome.page_counts, wanted.page_counts)
    if wanted.missed_share is not None:
        torch.testing.assert_close(outcome.missed_share, wanted.missed_share, atol=1e-5, rtol=1e-3)
    assert_close(pages.key_pages.float(), wanted_pages.key_pages.float(), bound)
    assert_close(pages.value_pages.float(), wanted_pages.value_pages.float(), bound)


# Rounding queries to the cache's dtype, as the reference does, is what the two differ in.
BOUNDS = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16, torch.float16, 8, 4], ids=str)
@pytest.mark.parametrize("tokens", [0, 1, 15, 16, 300, 2300])
def test_dense_step(assert_close, tokens, weights):
    pages, table = make_pages(tokens, 16, 16, torch.float32, "mean", True)
    arguments = (make_layers(weights, 3, 16), pages, table, tokens, None, weights, 16)
    assert_same_step(
        run(kernels.cpu.WholeStep, *arguments, threads=2), run(NaiveWholeStep, *arguments), assert_close, 1e-5
    )


@pytest.mark.parametrize("dtype", list(BOUNDS), ids=str)
@pytest.mark.parametrize("summary", ["mean", "bounds", "spread"])
@pytest.mark.parametrize("int8", [True, False], ids=["int8", "floating"])
@pytest.mark.parametrize(("tokens", "dense_layers"), [(63, 0), (300, 1), (2300, 0)])
def test_step_that_selects_pages(assert_close, tokens, dense_layers, int8, summary, dtype):
    pages, table = make_pages(tokens, 16, 4, dtype, summary, int8)
    choice = PageChoice(dense_layers, 40, 1, 1, summary != "bounds")
    arguments = (make_layers(8, 3, 16), pages, table, tokens, choice, 8, 16)
    actual, expected = run(kernels.cpu.WholeStep, *arguments, threads=2), run(NaiveWholeStep, *arguments)
    if dtype == torch.float32:
        assert_same_step(actual, expected, assert_close, BOUNDS[dtype])
    else:  # pages of nearly the same worth may change places
        same = (actual[0].page_ids == expected[0].page_ids).float().mean()
        assert same > 0.5
        assert actual[0].page_ids[0].shape == expected[0].page_ids[0].shape


@pytest.mark.parametrize("group", [1, 2, 4, 5, 8])
@pytest.mark.parametrize("head_dim", [16, 20, 64])
def test_other_shapes_norms_of_heads_and_biases(assert_close, head_dim, group):
    pages, table = make_pages(150, head_dim, 8, torch.float32, "mean", True)
    arguments = (
        make_layers(torch.float32, group, head_dim, qk_norm=True, bias=True), pages, table, 150,
        PageChoice(0, 6, 1, 1, True), torch.float32, head_dim,
    )  # fmt: skip
    assert_same_step(
        run(kernels.cpu.WholeStep, *arguments, threads=2), run(NaiveWholeStep, *arguments), assert_close, 1e-5
    )


@pytest.mark.parametrize("choice", [None, PageChoice(1, 64, 1, 1, True)], ids=["dense", "selecting"])
def test_the_same_bits_with_any_number_of_threads(choice):
    pages, table = make_pages(2300, 64, 4, torch.float16, "mean", True)
    arguments = (make_layers(4, 3, 64), pages, table, 2300, choice, 4, 64)
    alone, _ = run(kernels.cpu.WholeStep, *arguments, threads=1)
    for threads in (2, 4):
        for _ in range(5):
            shared, _ = run(kernels.cpu.WholeStep, *arguments, threads=threads)
            assert torch.equal(shared.logits, alone.logits)
            assert torch.equal(shared.page_ids, alone.page_ids)


def test_a_table_longer_than_the_sequence(assert_close):
    pages, table = make_pages(300, 16, 4, torch.float32, "mean", True)
    layers, choice = make_layers(torch.float32, 3, 16), PageChoice(0, 20, 1, 1, True)
    exact = run(kernels.cpu.WholeStep, layers, pages, table, 300, choice, torch.float32, 16, threads=1)
    longer = torch.cat((table, torch.zeros(50, dtype=torch.int32)))
    padded = run(kernels.cpu.WholeStep, layers, pages, longer, 300, choice, torch.float32, 16, threads=1)
    assert torch.equal(exact[0].logits, padded[0].logits)


def test_wrong_tensors_are_refused():
    layers = make_layers(torch.float32, 3, 16)
    for matrix in (layers[0].qkv.double(), layers[0].qkv.T):
        with pytest.raises(ValueError, match="a matrix must be"):
            kernels.cpu.WholeStep(
                [layers[0]._replace(qkv=matrix)], torch.ones(HIDDEN), draw(9, HIDDEN), EPSILON, draw(4, 8), draw(4, 8)
            )


