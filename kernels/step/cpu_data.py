"""What a whole decode step works on and in, as named tuples for compiled code."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels.attend.cpu import SPLIT_TOKENS, PartialSoftmax
from kernels.contract import PageBudget, RopeTables, SequenceView
from kernels.cpu_tools.arrays import CacheArrays, empty_on_lines
from kernels.cpu_tools.compile import inlined

# Items are large enough that claiming them costs nothing, and small enough that threads end together.
LAYER_ROWS, HEAD_ROWS, CHUNK_PAGES = 32, 512, 512
# A layer's rows in the table of matrices, and columns in that of norms.
QKV, OUTPUT, GATE_UP, DOWN, MATRICES = 0, 1, 2, 3, 4
ATTENTION_NORM, QUERY_NORM, KEY_NORM, MLP_NORM = range(4)


class StepWeights(NamedTuple):
    """A model as tables of addresses.

    Args:
        matrices: int64 [layers * MATRICES + 1, columns], see `products.describe_matrix`; the last is the head.
        norms: int64 [layers, 4], addresses of float32 weights; 0 for what the model does not have.
        final_norm: an address too.
        epsilon: float32, of the norms.
        rope: two arrays.
    """

    matrices: np.ndarray
    norms: np.ndarray
    final_norm: int
    epsilon: np.float32
    rope: RopeTables


class StepAttention(NamedTuple):
    """What a step attends to.

    Args:
        cache: of all layers.
        sequence: its length, a number, counts the tokens of the step.
        budget: of the layers that select.
        scale: float32, of the logits.
        dense_layers: the first layers, which read every page.
        selects: whether the other layers score and select pages; otherwise they read those that `StepShared` lists.
    """

    cache: CacheArrays
    sequence: SequenceView
    budget: PageBudget
    scale: np.float32
    dense_layers: int
    selects: bool


class StepShape(NamedTuple):
    """The numbers that arrays are allocated and loops run by; `pages` and `chunks` of them are the sequence's.

    `rows` are the tokens of the step, the last of the sequence.
    """

    rows: int
    layers: int
    query_heads: int
    kv_heads: int
    head_dim: int
    score_rows: int
    page_size: int
    pages: int
    chunks: int


class StepShared(NamedTuple):
    """What the threads of a step write for each other; float32 where nothing else is said.

    Args:
        progress: counters of the phases, see `work_sharing`.
        residual: [rows, hidden_size]; at first the tokens' embeddings.
        projected: [rows, (query_heads + 2 * kv_heads) * head_dim], queries, keys and values before norm and rotation.
        gated: [rows, intermediate_size].
        partials: [kv_heads, splits, ...] of the layer's attention, for each row and query head of a group.
        scores: [kv_heads, score_rows, pages]; if they are logits, their exponentials over a chunk's maximum.
        chunk_maxima, chunk_totals: [kv_heads, score_rows, chunks], of these exponentials.
        page_ids: int32 [selecting layers, kv_heads, budget], a result, or what is to be read.
        missed_mass: [selecting layers, kv_heads], a result.
        logits: [rows, vocab_size], the result.
    """

    progress: np.ndarray
    residual: np.ndarray
    projected: np.ndarray
    gated: np.ndarray
    partials: PartialSoftmax
    scores: np.ndarray
    chunk_maxima: np.ndarray
    chunk_totals: np.ndarray
    page_ids: np.ndarray
    missed_mass: np.ndarray
    logits: np.ndarray


class StepWorkspace(NamedTuple):
    """What one thread works in; float32 where nothing else is said.

    Args:
        inputs: [rows, ...], each as `products.order_inputs` lays it out.
        normed: [hidden_size].
        queries: [kv_heads, rows * group, head_dim], rotated; `keys` and `values` [rows, kv_heads, head_dim] likewise.
        attended: [query_heads * head_dim].
        query_vectors: [kv_heads, vectors, score_rows, head_dim], see `page_scores.make_query_vectors`.
        chunk_scores: [kv_heads, score_rows, CHUNK_PAGES]; `chunk_maxima` and `chunk_totals` [kv_heads, score_rows].
        split_logits: [rows * group, SPLIT_TOKENS].
        partial: [rows * group, ...] of a split.
        importance: [pages]; `ranks` uint32 and `candidates` int32 of the same length, see `select_pages.select_best`.
        page_ids: int32 [budget].
        factors: [chunks].
        products: [3, rows, HEAD_ROWS].
    """

    inputs: np.ndarray
    normed: np.ndarray
    queries: np.ndarray
    keys: np.ndarray
    values: np.ndarray
    attended: np.ndarray
    query_vectors: np.ndarray
    chunk_scores: np.ndarray
    chunk_maxima: np.ndarray
    chunk_totals: np.ndarray
    split_logits: np.ndarray
    partial: PartialSoftmax
    importance: np.ndarray
    ranks: np.ndarray
    candidates: np.ndarray
    page_ids: np.ndarray
    factors: np.ndarray
    products: np.ndarray


@inlined
def make_workspace(shape, vectors, budget_pages, hidden_size, input_floats):
    """A `StepWorkspace` for summaries of so many vectors."""
    members = shape.rows * shape.query_heads // shape.kv_heads
    queries = empty_on_lines(shape.kv_heads * members, shape.head_dim)
    return StepWorkspace(
        empty_on_lines(shape.rows, input_floats),
        np.empty(hidden_size, np.float32),
        queries.reshape(shape.kv_heads, members, shape.head_dim),
        np.empty((shape.rows, shape.kv_heads, shape.head_dim), np.float32),
        np.empty((shape.rows, shape.kv_heads, shape.head_dim), np.float32),
        np.empty(shape.query_heads * shape.head_dim, np.float32),
        np.empty((shape.kv_heads, vectors, shape.score_rows, shape.head_dim), np.float32),
        np.empty((shape.kv_heads, shape.score_rows, CHUNK_PAGES), np.float32),
        np.empty((shape.kv_heads, shape.score_rows), np.float32),
        np.empty((shape.kv_heads, shape.score_rows), np.float32),
        empty_on_lines(members, SPLIT_TOKENS),
        PartialSoftmax(
            np.empty(members, np.float32),
            np.empty(members, np.float32),
            empty_on_lines(members, shape.head_dim),
        ),
        np.empty(shape.pages, np.float32),
        np.empty(shape.pages, np.uint32),
        np.empty(shape.pages, np.int32),
        np.empty(budget_pages, np.int32),
        np.empty(shape.chunks, np.float32),
        np.empty((3, shape.rows, HEAD_ROWS), np.float32),
    )
