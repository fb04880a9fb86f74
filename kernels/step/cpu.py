"""All layers of a decode step and the head in one call, shared by a few threads; Numba.

Between two operators lies no return to Python: a step of a small model would spend more time there than in its
products. Vectors are float32 whatever the weights and the cache are. The phases of a step are in `cpu_phases.py`,
what they work on in `cpu_data.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch

from kernels.attend.cpu import SPLIT_TOKENS, PartialSoftmax, require_splits
from kernels.contract import (
    LayerCache,
    LayerDecodeWeights,
    Matrix,
    PageBudget,
    RopeTables,
    SelectedPages,
    SequenceView,
    StepOutcome,
)
from kernels.cpu_tools.arrays import cache_arrays, sequence_arrays
from kernels.cpu_tools.checks import require_cache
from kernels.cpu_tools.compile import compiled
from kernels.cpu_tools.work_sharing import StepThreads, new_progress
from kernels.linear.cpu_products import OUT_CHANNELS, ROW_BYTES, describe_matrix, input_floats
from kernels.score.cpu import score_rows
from kernels.step.cpu_data import (
    CHUNK_PAGES,
    GATE_UP,
    QKV,
    StepAttention,
    StepShape,
    StepShared,
    StepWeights,
    make_workspace,
)
from kernels.step.cpu_phases import (
    add_down,
    add_output,
    append_and_score,
    count_items,
    count_phases,
    gate_and_up,
    multiply_head,
    project,
    select_and_attend,
)

# Below, a step is over before another thread has woken.
SHARED_WEIGHT_BYTES = 1 << 22


@compiled
def _run_layers(weights, attention, shape, shared, input_length):
    """One thread's part of a step; `input_length` is what `input_floats` says."""
    vectors = attention.cache.summaries.shape[3]
    workspace = make_workspace(shape, vectors, attention.budget.pages, shared.residual.shape[1], input_length)
    for layer in range(shape.layers):
        project(weights, layer, shared, workspace)
        has_queries = append_and_score(weights, layer, attention, shape, shared, workspace)
        select_and_attend(weights, layer, attention, shape, shared, workspace, has_queries)
        add_output(weights, layer, attention, shape, shared, workspace)
        gate_and_up(weights, layer, shared, workspace)
        add_down(weights, layer, shared, workspace)
    multiply_head(weights, shared, workspace)


class WholeStep:
    """As `kernels.reference.NaiveWholeStep`, prepared once for a model's weights.

    Args:
        layers: decode weights of each layer.
        final_norm: [hidden_size].
        head: [vocab_size, hidden_size].
        epsilon: of the norms.
        rope: of all positions.
        threads: that share a step; None takes as many as torch uses, or one for a small model.

    Raises:
        ValueError: for a matrix whose dtype or layout the kernels do not take.
    """

    def __init__(
        self,
        layers: Sequence[LayerDecodeWeights],
        final_norm: torch.Tensor,
        head: Matrix,
        epsilon: float,
        rope: RopeTables,
        threads: int | None = None,
    ) -> None:
        self._layers = [_in_float32(layer) for layer in layers]  # keeps alive what the tables point to
        self._final_norm, self._head = final_norm.float().contiguous(), head
        matrices, norms = [], []
        for layer in self._layers:
            matrices.append(describe_matrix(layer.qkv, layer.qkv_bias))
            matrices.append(describe_matrix(layer.output, layer.output_bias))
            matrices.append(describe_matrix(layer.gate_up))
            matrices.append(describe_matrix(layer.down))
            vectors = (layer.attention_norm, layer.query_norm, layer.key_norm, layer.mlp_norm)
            norms.append([0 if vector is None else vector.data_ptr() for vector in vectors])
        matrices.append(describe_matrix(head))
        table = np.array(matrices, np.int64)
        self._weights = StepWeights(
            table, np.array(norms, np.int64), self._final_norm.data_ptr(), np.float32(epsilon), _rope_arrays(rope)
        )
        self._input_length = input_floats(table)
        shared = int((table[:, ROW_BYTES] * table[:, OUT_CHANNELS]).sum()) >= SHARED_WEIGHT_BYTES
        self._threads = StepThreads(threads or (torch.get_num_threads() if shared else 1))

    def with_rope(self, rope: RopeTables) -> WholeStep:
        """The same step, and threads, at positions that are rotated otherwise."""
        other = copy.copy(self)
        other._weights = self._weights._replace(rope=_rope_arrays(rope))
        return other

    def close(self) -> None:
        """End the helper threads."""
        self._threads.close()

    def __call__(
        self,
        hidden: torch.Tensor,
        cache: LayerCache,
        sequence: SequenceView,
        budget: PageBudget | None,
        scale: float,
        dense_layers: int = 0,
        pages: SelectedPages | None = None,
    ) -> StepOutcome:
        """As `kernels.reference.NaiveWholeStep.__call__`.

        Raises:
            ValueError: for another dtype, device or layout of the cache, a budget smaller than what is always read, or
                a budget for several tokens.
        """
        require_cache(cache)
        require_splits(cache)
        if budget is not None:
            budget.check()
            if len(hidden) > 1:
                raise ValueError(f"several tokens read every page, got a budget for {len(hidden)}")
        if pages is not None:
            # All kv heads read as many.
            budget = PageBudget(int(pages.page_counts[0]), 0, 0)
        layers = len(self._layers)
        first_layer = layers if budget is None else min(dense_layers, layers)
        read = budget or PageBudget(0, 0, 0)
        arrays, view = cache_arrays(cache), sequence_arrays(sequence)
        attention = StepAttention(arrays, view, read, np.float32(scale), first_layer, pages is None)
        shape = self._shape(len(hidden), cache, attention)
        if pages is None:
            page_ids = torch.empty((layers - first_layer, shape.kv_heads, attention.budget.pages), dtype=torch.int32)
        else:
            page_ids = pages.page_ids
        missed_mass = torch.empty(page_ids.shape[:2])
        logits = torch.empty(len(hidden), int(self._weights.matrices[-1, OUT_CHANNELS]))
        results = page_ids.numpy(), missed_mass.numpy(), logits.numpy()
        shared = self._allocate(hidden, attention, shape, results)
        self._threads.run(self._run_layers, attention, shape, shared)
        if first_layer == layers:
            return StepOutcome(logits, None, first_layer)
        if pages is not None:
            return StepOutcome(logits, pages, first_layer)
        page_counts = torch.full((shape.kv_heads,), min(budget.pages, shape.pages), dtype=torch.int32)
        has_mass = cache.layout.summary.scores_are_logits
        selected = SelectedPages(page_ids, page_counts, missed_mass if has_mass else None)
        return StepOutcome(logits, selected, first_layer)

    def _run_layers(self, attention: StepAttention, shape: StepShape, shared: StepShared) -> None:
        """A method, so that a thread that is late keeps alive the weights it still reads."""
        _run_layers(self._weights, attention, shape, shared, self._input_length)

    def _shape(self, rows: int, cache: LayerCache, attention: StepAttention) -> StepShape:
        layout = cache.layout
        query_heads = int(self._weights.matrices[QKV, OUT_CHANNELS]) // layout.head_dim - 2 * layout.kv_heads
        pages = -(-attention.sequence.length_tokens // layout.page_size)
        return StepShape(
            rows=rows,
            layers=len(self._layers),
            query_heads=query_heads,
            kv_heads=layout.kv_heads,
            head_dim=layout.head_dim,
            score_rows=score_rows.py_func(attention.cache.kind, query_heads // layout.kv_heads),
            page_size=layout.page_size,
            pages=pages,
            chunks=-(-pages // CHUNK_PAGES),
        )

    def _allocate(
        self,
        hidden: torch.Tensor,
        attention: StepAttention,
        shape: StepShape,
        results: tuple[np.ndarray, np.ndarray, np.ndarray],
    ) -> StepShared:
        """What the threads of a step write, with room for the layer that needs most."""
        selecting = attention.dense_layers < shape.layers
        members = shape.rows * shape.query_heads // shape.kv_heads
        pages_read = shape.pages
        if selecting and not attention.dense_layers:
            pages_read = min(attention.budget.pages, shape.pages)
        splits = (shape.kv_heads, -(-pages_read // (SPLIT_TOKENS // shape.page_size)), members)
        chunks = (shape.kv_heads, shape.score_rows, shape.chunks)
        matrices = self._weights.matrices
        items = count_items(matrices, shape, splits[1])
        return StepShared(
            new_progress(count_phases.py_func(shape.layers, shape.kv_heads), items),
            hidden.float().clone(memory_format=torch.contiguous_format).numpy(),
            np.empty((shape.rows, int(matrices[QKV, OUT_CHANNELS])), np.float32),
            np.empty((shape.rows, int(matrices[GATE_UP, OUT_CHANNELS]) // 2), np.float32),
            PartialSoftmax(
                np.empty(splits, np.float32),
                np.empty(splits, np.float32),
                np.empty((*splits, shape.head_dim), np.float32),
            ),
            np.empty((*chunks[:2], shape.pages if selecting else 0), np.float32),
            np.empty(chunks, np.float32),
            np.empty(chunks, np.float32),
            *results,
        )


def _rope_arrays(rope: RopeTables) -> RopeTables:
    """The same tables for compiled code."""
    return RopeTables(*(table.numpy() for table in rope))


def _in_float32(layer: LayerDecodeWeights) -> LayerDecodeWeights:
    """Norms and biases as the kernels read them; matrices stay."""
    vectors = ("attention_norm", "query_norm", "key_norm", "mlp_norm", "qkv_bias", "output_bias")
    wide = {name: getattr(layer, name) for name in vectors}
    return layer._replace(
        **{name: None if vector is None else vector.float().contiguous() for name, vector in wide.items()}
    )
