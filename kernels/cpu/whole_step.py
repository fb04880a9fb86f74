"""All layers of one decode step and the head in one call, shared by a few threads; Numba.

Between two operators lies no return to Python: a step of a small model would spend more time there than in its
products. A layer has six phases (see `work_sharing`): the projection of queries, keys and values; append and scores;
selection and attention; the output projection; gate and up; down. Vectors are float32 whatever the weights and the
cache are. The same functions as in the single operators do the work.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch

from kernels.cpu.append_keys_values import append_tokens
from kernels.cpu.compile import as_array, compiled, require_pages, require_summaries
from kernels.cpu.decode_attention import PART_TOKENS, attend_part, merge_parts
from kernels.cpu.exponentials import exponentiate
from kernels.cpu.page_scores import KINDS, query_functions, score_pages, score_rows
from kernels.cpu.products import (
    OUT_CHANNELS,
    ROW_BYTES,
    describe_matrix,
    dot_float32,
    input_floats,
    multiply_rows,
    order_inputs,
)
from kernels.cpu.select_pages import add_shares, merge_softmax, select_best
from kernels.cpu.vectors import address_of, largest_of, load_float
from kernels.cpu.work_sharing import StepThreads, claim, finish, new_progress, wait
from kernels.reference import LayerOperands, PageChoice, StepOutcome, StepPages, check_summary

# Items are large enough that claiming them costs nothing, and small enough that threads end together.
LAYER_ROWS, HEAD_ROWS, CHUNK_PAGES = 32, 512, 512
PHASES = 6
# Below, a step is over before another thread has woken.
SHARED_WEIGHT_BYTES = 1 << 22
# Rows of a layer in the table of matrices, and columns in that of norms.
QKV, OUTPUT, GATE_UP, DOWN, MATRICES = 0, 1, 2, 3, 4
ATTENTION_NORM, QUERY_NORM, KEY_NORM, MLP_NORM, NORMS = 0, 1, 2, 3, 4


@compiled
def _norm(hidden, weights, epsilon, normed):
    """`naive_rms_norm` of a vector; `weights` is an address."""
    square = dot_float32(address_of(hidden), address_of(hidden), len(hidden))
    inverse = np.float32(1.0) / np.sqrt(square / np.float32(len(hidden)) + epsilon)
    for i in range(len(hidden)):
        normed[i] = hidden[i] * inverse * load_float(weights, i)


@compiled
def _rotate(head, cosines, sines, rotated):
    half = len(head) // 2
    for d in range(half):
        rotated[d] = head[d] * cosines[d] - head[half + d] * sines[d]
        rotated[half + d] = head[half + d] * cosines[d] + head[d] * sines[d]


@compiled
def _norm_and_rotate(heads, norm, epsilon, cosines, sines, rotated):
    """[heads, head_dim] of queries or keys, normed first if `norm` is an address."""
    normed = np.empty(heads.shape[1], np.float32)
    for head in range(len(heads)):
        if norm != 0:
            _norm(heads[head], norm, epsilon, normed)
            _rotate(normed, cosines, sines, rotated[head])
        else:
            _rotate(heads[head], cosines, sines, rotated[head])


@compiled
def _add_rows(matrix, first, end, inputs, products, residual):
    end = min(end, len(residual))
    multiply_rows(matrix, first, end, inputs, products)
    for row in range(first, end):
        residual[row] += products[row - first]


@compiled
def _gate_rows(matrix, first, end, inputs, products, gated):
    """Channels of `silu(gate) * up`."""
    count = min(end, len(gated)) - first
    gates, ups, negated = products[0, :count], products[1, :count], products[2, :count]
    multiply_rows(matrix, first, first + count, inputs, gates)
    multiply_rows(matrix, len(gated) + first, len(gated) + first + count, inputs, ups)
    for row in range(count):
        # Beyond, e^-gate is no float32; the gate is 0 there in any case.
        negated[row] = min(-gates[row], np.float32(87.0))
    exponentiate(negated, np.float32(0.0), negated)
    for row in range(count):
        gated[first + row] = gates[row] / (np.float32(1.0) + negated[row]) * ups[row]


@compiled
def _run_layers(
    matrices, norms, final_norm, epsilon, cosines, sines, key_pages, value_pages, page_summaries, summary_scales,
    page_table, start, kind, logits_scale, dense_layers, sink_pages, recent_pages, shares, progress, input_length,
    residual, projected, gated, maxima, totals, attended_parts, scores, chunk_maxima, chunk_totals, page_ids,
    missed_share, logits,
):  # fmt: skip
    layers = len(norms)
    kv_heads, page_size, head_dim = key_pages.shape[2:]
    query_rows = len(projected) - 2 * kv_heads * head_dim
    query_heads = query_rows // head_dim
    group = query_heads // kv_heads
    rows = score_rows(kind, group)
    context_tokens = start + 1
    pages = (context_tokens + page_size - 1) // page_size
    part_pages = PART_TOKENS // page_size
    chunks = (pages + CHUNK_PAGES - 1) // CHUNK_PAGES
    budget_pages = page_ids.shape[2]
    # What a thread works in.
    inputs, normed = np.empty(input_length, np.float32), np.empty(len(residual), np.float32)
    queries, attended = np.empty((query_heads, head_dim), np.float32), np.empty(query_rows, np.float32)
    keys = np.empty((1, kv_heads, head_dim), np.float32)
    functions = np.empty((kv_heads, page_summaries.shape[3], rows, head_dim), np.float32)
    part_logits = np.empty((group, PART_TOKENS), np.float32)
    worth, ranks, candidates = np.empty(pages, np.float32), np.empty(pages, np.uint32), np.empty(pages, np.int32)
    factors = np.empty(chunks, np.float32)
    products = np.empty((3, LAYER_ROWS), np.float32)
    no_ids = np.empty(0, np.int32)

    for layer in range(layers):
        phase = layer * PHASES
        layer_matrices = matrices[layer * MATRICES : (layer + 1) * MATRICES]
        sparse = layer >= dense_layers
        selected = layer - dense_layers

        # Queries, keys and values.
        matrix = layer_matrices[QKV]
        items = (matrix[OUT_CHANNELS] + LAYER_ROWS - 1) // LAYER_ROWS
        ready = False
        item = claim(progress, phase)
        while item < items:
            if not ready:
                _norm(residual, norms[layer, ATTENTION_NORM], epsilon, normed)
                order_inputs(matrix, normed, inputs)
                ready = True
            first, end = item * LAYER_ROWS, min((item + 1) * LAYER_ROWS, len(projected))
            multiply_rows(matrix, first, end, inputs, projected[first:end])
            finish(progress, phase)
            item = claim(progress, phase)
        wait(progress, phase, items)

        # Append, and score chunk by chunk: the last one holds the new key's page.
        phase += 1
        items = chunks if sparse else 1
        ready = False
        item = claim(progress, phase)
        while item < items:
            if not ready:
                _norm_and_rotate(
                    projected[:query_rows].reshape(query_heads, head_dim), norms[layer, QUERY_NORM], epsilon,
                    cosines[start], sines[start], queries,
                )  # fmt: skip
                for head in range(kv_heads):
                    heads = queries[head * group : (head + 1) * group]
                    query_functions(heads, kind, logits_scale, functions[head])
                ready = True
            # The longest item first: it alone also appends.
            item = items - 1 - item
            if item == items - 1:
                heads = projected[query_rows:].reshape(2 * kv_heads, head_dim)
                _norm_and_rotate(
                    heads[:kv_heads], norms[layer, KEY_NORM], epsilon, cosines[start], sines[start], keys[0]
                )
                append_tokens(
                    keys, heads[kv_heads:].reshape(1, kv_heads, head_dim), key_pages[layer], value_pages[layer],
                    page_summaries[layer], summary_scales[layer], page_table,
                    start, kind,
                )  # fmt: skip
            if sparse:
                first, end = item * CHUNK_PAGES, min((item + 1) * CHUNK_PAGES, pages)
                score_pages(
                    functions, page_summaries[layer], summary_scales[layer],
                    page_table, first, end, scores,
                )  # fmt: skip
                if shares:
                    for head in range(kv_heads):
                        for row in range(rows):
                            chunk = scores[head, row, first:end]
                            highest = largest_of(address_of(chunk), end - first)
                            chunk_maxima[head, row, item] = highest
                            chunk_totals[head, row, item] = exponentiate(chunk, highest, chunk)
            finish(progress, phase)
            item = claim(progress, phase)
        wait(progress, phase, items)

        # Select for each kv head, then attend to the parts of each; those of a head wait for its selection.
        phase += 1
        count = min(budget_pages, pages) if sparse else pages
        parts = (count + part_pages - 1) // part_pages
        selections = kv_heads if sparse else 0
        items = selections + kv_heads * parts
        has_queries = ready
        item = claim(progress, phase)
        while item < items:
            if item < selections:
                worth[:] = 0.0
                for row in range(rows):
                    if shares:
                        merge_softmax(chunk_maxima[item, row, :chunks], chunk_totals[item, row, :chunks], factors)
                        add_shares(scores[item, row], factors, CHUNK_PAGES, worth)
                    else:
                        worth[:] = scores[item, row, :pages]
                read = select_best(
                    worth, count, sink_pages, recent_pages, ranks, candidates, page_ids[selected, item]
                )
                missed_share[selected, item] = np.float32(1.0) - read / np.float32(rows)
                finish(progress, layers * PHASES + 1 + layer * kv_heads + item)
            else:
                if not has_queries:
                    _norm_and_rotate(
                        projected[:query_rows].reshape(query_heads, head_dim), norms[layer, QUERY_NORM], epsilon,
                        cosines[start], sines[start], queries,
                    )  # fmt: skip
                    has_queries = True
                head, part = (item - selections) // parts, (item - selections) % parts
                ids = no_ids
                if sparse:
                    wait(progress, layers * PHASES + 1 + layer * kv_heads + head, 1)
                    ids = page_ids[selected, head]
                attend_part(
                    queries[head * group : (head + 1) * group], key_pages[layer], value_pages[layer], page_table, ids,
                    part * part_pages, min((part + 1) * part_pages, count), head, context_tokens, logits_scale,
                    part_logits, maxima[head, part], totals[head, part], attended_parts[head, part],
                )  # fmt: skip
            finish(progress, phase)
            item = claim(progress, phase)
        wait(progress, phase, items)

        # Output projection.
        phase += 1
        matrix = layer_matrices[OUTPUT]
        items = (matrix[OUT_CHANNELS] + LAYER_ROWS - 1) // LAYER_ROWS
        ready = False
        item = claim(progress, phase)
        while item < items:
            if not ready:
                for query_head in range(query_heads):
                    head, member = query_head // group, query_head % group
                    merge_parts(
                        maxima[head, :parts, member], totals[head, :parts, member],
                        attended_parts[head, :parts, member],
                        attended[query_head * head_dim : (query_head + 1) * head_dim],
                    )  # fmt: skip
                order_inputs(matrix, attended, inputs)
                ready = True
            _add_rows(matrix, item * LAYER_ROWS, (item + 1) * LAYER_ROWS, inputs, products[0], residual)
            finish(progress, phase)
            item = claim(progress, phase)
        wait(progress, phase, items)

        # Gate and up.
        phase += 1
        matrix = layer_matrices[GATE_UP]
        items = (len(gated) + LAYER_ROWS - 1) // LAYER_ROWS
        ready = False
        item = claim(progress, phase)
        while item < items:
            if not ready:
                _norm(residual, norms[layer, MLP_NORM], epsilon, normed)
                order_inputs(matrix, normed, inputs)
                ready = True
            _gate_rows(matrix, item * LAYER_ROWS, (item + 1) * LAYER_ROWS, inputs, products, gated)
            finish(progress, phase)
            item = claim(progress, phase)
        wait(progress, phase, items)

        # Down.
        phase += 1
        matrix = layer_matrices[DOWN]
        items = (matrix[OUT_CHANNELS] + LAYER_ROWS - 1) // LAYER_ROWS
        ready = False
        item = claim(progress, phase)
        while item < items:
            if not ready:
                order_inputs(matrix, gated, inputs)
                ready = True
            _add_rows(matrix, item * LAYER_ROWS, (item + 1) * LAYER_ROWS, inputs, products[0], residual)
            finish(progress, phase)
            item = claim(progress, phase)
        wait(progress, phase, items)

    phase = layers * PHASES
    matrix = matrices[layers * MATRICES]
    items = (matrix[OUT_CHANNELS] + HEAD_ROWS - 1) // HEAD_ROWS
    ready = False
    item = claim(progress, phase)
    while item < items:
        if not ready:
            _norm(residual, final_norm, epsilon, normed)
            order_inputs(matrix, normed, inputs)
            ready = True
        first, end = item * HEAD_ROWS, min((item + 1) * HEAD_ROWS, len(logits))
        multiply_rows(matrix, first, end, inputs, logits[first:end])
        finish(progress, phase)
        item = claim(progress, phase)
    wait(progress, phase, items)


class WholeStep:
    """As `kernels.reference.NaiveWholeStep`, prepared once for a model's weights.

    Args:
        layers: operands of each layer.
        final_norm: [hidden_size].
        head: [vocab_size, hidden_size].
        epsilon: of the norms.
        cosines, sines: float32 [max_tokens, head_dim // 2].
        threads: that share a step; None takes as many as torch uses, or one for a small model.

    Raises:
        ValueError: for a matrix whose dtype or layout the kernels do not take.
    """

    def __init__(
        self,
        layers: Sequence[LayerOperands],
        final_norm: torch.Tensor,
        head: torch.Tensor,
        epsilon: float,
        cosines: torch.Tensor,
        sines: torch.Tensor,
        threads: int | None = None,
    ) -> None:
        self._operands = [_in_float32(layer) for layer in layers]  # keeps alive what the tables point to
        self._final_norm, self._head = final_norm.float().contiguous(), head
        matrices, norms = [], []
        for layer in self._operands:
            matrices.append(describe_matrix(layer.qkv, layer.qkv_bias))
            matrices.append(describe_matrix(layer.output, layer.output_bias))
            matrices.append(describe_matrix(layer.gate_up))
            matrices.append(describe_matrix(layer.down))
            vectors = (layer.attention_norm, layer.query_norm, layer.key_norm, layer.mlp_norm)
            norms.append([0 if vector is None else vector.data_ptr() for vector in vectors])
        matrices.append(describe_matrix(head))
        self._matrices, self._norms = np.array(matrices, np.int64), np.array(norms, np.int64)
        self._epsilon = np.float32(epsilon)
        self._rope = cosines.numpy(), sines.numpy()
        self._input_length = input_floats(self._matrices)
        weight_bytes = int((self._matrices[:, ROW_BYTES] * self._matrices[:, OUT_CHANNELS]).sum())
        shared = weight_bytes >= SHARED_WEIGHT_BYTES
        self._threads = StepThreads(threads or (torch.get_num_threads() if shared else 1))

    def with_rope(self, cosines: torch.Tensor, sines: torch.Tensor) -> WholeStep:
        """The same step, and threads, at positions that are rotated otherwise."""
        other = copy.copy(self)
        other._rope = cosines.numpy(), sines.numpy()
        return other

    def close(self) -> None:
        """End the helper threads."""
        self._threads.close()

    def __call__(
        self,
        hidden: torch.Tensor,
        pages: StepPages,
        page_table: torch.Tensor,
        start_token: torch.Tensor,
        scale: float,
        choice: PageChoice | None,
    ) -> StepOutcome:
        """As `kernels.reference.NaiveWholeStep.__call__`.

        Raises:
            ValueError: for another dtype, device, layout or summary of the pages.
        """
        require_pages(key_pages=pages.key_pages, value_pages=pages.value_pages)
        summaries, scales = pages.page_summaries, pages.summary_scales
        require_summaries(summaries[0], None if scales is None else scales[0], check_summary(pages.summary))
        layers, _, kv_heads, page_size, head_dim = pages.key_pages.shape
        start = int(start_token)
        logical_pages = -(-(start + 1) // page_size)
        matrices = self._matrices
        qkv_rows, gate_rows = (int(matrices[row, OUT_CHANNELS]) for row in (QKV, GATE_UP))
        group = qkv_rows // head_dim // kv_heads - 2
        kind = KINDS[pages.summary]
        dense_layers = layers if choice is None else min(choice.dense_layers, layers)
        selecting = layers - dense_layers
        count = logical_pages
        if selecting and not dense_layers:
            count = min(choice.budget_pages, logical_pages)
        parts = -(-count // (PART_TOKENS // page_size))
        chunks = -(-logical_pages // CHUNK_PAGES)
        rows = score_rows.py_func(kind, group)
        page_ids = torch.empty((selecting, kv_heads, choice.budget_pages if selecting else 0), dtype=torch.int32)
        missed_share = torch.empty((selecting, kv_heads))
        logits = torch.empty(int(matrices[-1, OUT_CHANNELS]))
        work = (
            hidden.flatten().float().clone().numpy(),
            np.empty(qkv_rows, np.float32),
            np.empty(gate_rows // 2, np.float32),
            np.empty((kv_heads, parts, group), np.float32),
            np.empty((kv_heads, parts, group), np.float32),
            np.empty((kv_heads, parts, group, head_dim), np.float32),
            np.empty((kv_heads, rows, logical_pages if selecting else 0), np.float32),
            np.empty((kv_heads, rows, chunks), np.float32),
            np.empty((kv_heads, rows, chunks), np.float32),
        )
        self._threads.run(
            _run_layers,
            matrices,
            self._norms,
            self._final_norm.data_ptr(),
            self._epsilon,
            *self._rope,
            as_array(pages.key_pages),
            as_array(pages.value_pages),
            as_array(summaries),
            np.empty((layers, 0, 0, 0), np.float32) if scales is None else scales.numpy(),
            page_table.numpy(),
            start,
            kind,
            np.float32(scale),
            dense_layers,
            choice.sink_pages if choice else 0,
            choice.recent_pages if choice else 0,
            bool(choice and choice.logits),
            new_progress(layers * PHASES + 1 + layers * kv_heads),
            self._input_length,
            *work,
            page_ids.numpy(),
            missed_share.numpy(),
            logits.numpy(),
        )
        counts = torch.full((kv_heads,), min(choice.budget_pages, logical_pages) if choice else 0, dtype=torch.int32)
        known = choice is not None and choice.logits
        return StepOutcome(logits, page_ids, counts, missed_share if known else None, dense_layers)


def _in_float32(layer: LayerOperands) -> LayerOperands:
    """Norms and biases as the kernels read them; matrices stay."""
    vectors = ("attention_norm", "query_norm", "key_norm", "mlp_norm", "qkv_bias", "output_bias")
    wide = {name: getattr(layer, name) for name in vectors}
    return layer._replace(
        **{name: None if vector is None else vector.float().contiguous() for name, vector in wide.items()}
    )
