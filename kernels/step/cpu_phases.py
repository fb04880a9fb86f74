"""The phases of a decode step, each a function that threads call together (see `work_sharing`); Numba.

A layer has six: the projection of queries, keys and values; append and scores; selection and attention; the output
projection; gate and up; down. The head follows the last layer. Whoever claims an item of a phase prepares for himself
what its items need; the same functions as in the single operators do the work. An item is computed into the thread's
workspace, and only then written to where the others see it, by whoever `begin_write` lets. The phases are inlined into
the one function of the step: each compiled by itself, with all products below it, they took half as long again to
compile.
"""

from __future__ import annotations

import numpy as np

from kernels.append.cpu import append_tokens
from kernels.attend.cpu import SPLIT_TOKENS, PartialSoftmax, Split, attend_split, merge_splits
from kernels.cpu_tools.arrays import BOUNDS, layer_of
from kernels.cpu_tools.compile import compiled, inlined
from kernels.cpu_tools.exponentials import exponentiate
from kernels.cpu_tools.vectors import address_of, largest_of, load_float
from kernels.cpu_tools.work_sharing import begin_write, claim, finish, wait
from kernels.linear.cpu_products import OUT_CHANNELS, dot_float32, multiply_rows, order_inputs
from kernels.score.cpu import make_query_vectors, score_pages
from kernels.select.cpu import add_softmax_mass, merge_softmax, select_best
from kernels.step.cpu_data import (
    ATTENTION_NORM,
    CHUNK_PAGES,
    DOWN,
    GATE_UP,
    HEAD_ROWS,
    KEY_NORM,
    LAYER_ROWS,
    MATRICES,
    MLP_NORM,
    OUTPUT,
    QKV,
    QUERY_NORM,
)

PROJECT_PHASE, SCORE_PHASE, ATTEND_PHASE, OUTPUT_PHASE, GATE_UP_PHASE, DOWN_PHASE, PHASES = range(7)


@compiled
def count_phases(layers, kv_heads):
    """Rows of `progress`.

    They are the layers' phases, the head's, one for each selection, which attention waits for, and one for each layer's
    append, which the score of the new key's page waits for.
    """
    return layers * PHASES + 1 + layers * kv_heads + layers


def count_items(matrices, shape, splits):
    """The most items that a phase has, with so many splits of a kv head at most."""
    rows = max(matrices[:-1, OUT_CHANNELS].max() // LAYER_ROWS, matrices[-1, OUT_CHANNELS] // HEAD_ROWS) + 1
    return max(rows, shape.chunks, shape.kv_heads * (splits + 1))


@compiled
def _selection_phase(shape, layer, head):
    return shape.layers * PHASES + 1 + layer * shape.kv_heads + head


@compiled
def _append_phase(shape, layer):
    return shape.layers * (PHASES + shape.kv_heads) + 1 + layer


@inlined
def project(weights, layer, shared, workspace):
    """Queries, keys and values of a layer."""
    matrix, norm = weights.matrices[layer * MATRICES + QKV], weights.norms[layer, ATTENTION_NORM]
    phase = layer * PHASES + PROJECT_PHASE
    _multiply_normed(matrix, norm, weights.epsilon, phase, LAYER_ROWS, shared, workspace, shared.projected)


@inlined
def multiply_head(weights, shared, workspace):
    """The logits."""
    layers = len(weights.norms)
    matrix, phase = weights.matrices[layers * MATRICES], layers * PHASES
    _multiply_normed(
        matrix, weights.final_norm, weights.epsilon, phase, HEAD_ROWS, shared, workspace, shared.logits
    )


@inlined
def _multiply_normed(matrix, norm, epsilon, phase, item_rows, shared, workspace, out):
    """Multiply the normed residual with a matrix, in items of so many rows."""
    progress, residual, normed, inputs = shared.progress, shared.residual, workspace.normed, workspace.inputs
    products = workspace.products[0]
    items = (matrix[OUT_CHANNELS] + item_rows - 1) // item_rows
    ready = False
    item = claim(progress, phase, items)
    while item < items:
        if not ready:
            for row in range(len(residual)):
                _norm(residual[row], norm, epsilon, normed)
                order_inputs(matrix, normed, inputs[row])
            ready = True
        first, end = item * item_rows, min((item + 1) * item_rows, out.shape[1])
        multiply_rows(matrix, first, end, inputs, products[:, : end - first])
        if begin_write(progress, phase, item):
            _copy_rows(products, out[:, first:end])
            finish(progress, phase)
        item = claim(progress, phase, items)


@inlined
def append_and_score(weights, layer, attention, shape, shared, workspace):
    """Append the new key and value, and score the pages chunk by chunk where the layer selects.

    Returns:
        Whether the thread's workspace has the layer's queries.
    """
    progress, phase = shared.progress, layer * PHASES + SCORE_PHASE
    sequence, cache = attention.sequence, layer_of(attention.cache, layer)
    group = shape.query_heads // shape.kv_heads
    sparse = attention.selects and layer >= attention.dense_layers
    items = shape.chunks if sparse else 1
    ready = False
    item = claim(progress, phase, items)
    while item < items:
        if not ready:
            _rotate_queries(weights, layer, sequence, shape, shared.projected, workspace.queries)
            # Of the only row: several read every page.
            for head in range(shape.kv_heads):
                queries = workspace.queries[head, :group]
                make_query_vectors(queries, cache.kind, attention.scale, workspace.query_vectors[head])
            ready = True
        # The longest item first: it holds the new key's page, and alone also appends.
        chunk = items - 1 - item
        if item == 0:
            _append(weights, layer, cache, shape, sequence, shared, workspace)
        first, end = chunk * CHUNK_PAGES, min((chunk + 1) * CHUNK_PAGES, shape.pages)
        scores, maxima, totals = workspace.chunk_scores, workspace.chunk_maxima, workspace.chunk_totals
        if sparse:
            score_pages(workspace.query_vectors, cache, sequence.page_table[first:end], 0, end - first, scores)
            if cache.kind != BOUNDS:
                _exponentiate_chunk(scores, end - first, maxima, totals)
        if begin_write(progress, phase, item):
            if sparse:
                _write_scores(scores, maxima, totals, chunk, first, end, shared)
            finish(progress, phase)
        item = claim(progress, phase, items)
    return ready


@inlined
def _append(weights, layer, cache, shape, sequence, shared, workspace):
    """Norm and rotate the new keys, which lie with the values behind the queries, and append both, if none has."""
    progress, phase, projected = shared.progress, _append_phase(shape, layer), shared.projected
    keys, values = workspace.keys, workspace.values
    rows, kv_heads, head_dim = keys.shape
    first_position, queries = sequence.length_tokens - rows, projected.shape[1] - 2 * kv_heads * head_dim
    for row in range(rows):
        heads = projected[row, queries:].reshape(2 * kv_heads, head_dim)
        cosines, sines = weights.rope.cosines[first_position + row], weights.rope.sines[first_position + row]
        _norm_and_rotate(heads[:kv_heads], weights.norms[layer, KEY_NORM], weights.epsilon, cosines, sines, keys[row])
        # A loop, as `compile` says.
        for head in range(kv_heads):
            for d in range(head_dim):
                values[row, head, d] = heads[kv_heads + head, d]
    if begin_write(progress, phase, 0):
        append_tokens(keys, values, cache, sequence)
        finish(progress, phase)
    wait(progress, phase, 1)


@inlined
def _rotate_queries(weights, layer, sequence, shape, projected, queries):
    """Norm and rotate the queries."""
    norm, group = weights.norms[layer, QUERY_NORM], shape.query_heads // shape.kv_heads
    first_position = sequence.length_tokens - shape.rows
    for row in range(shape.rows):
        heads = projected[row, : shape.query_heads * shape.head_dim].reshape(shape.query_heads, shape.head_dim)
        cosines, sines = weights.rope.cosines[first_position + row], weights.rope.sines[first_position + row]
        for head in range(shape.kv_heads):
            of_group, rotated = heads[head * group : (head + 1) * group], queries[head, row * group : (row + 1) * group]
            _norm_and_rotate(of_group, norm, weights.epsilon, cosines, sines, rotated)


@inlined
def _exponentiate_chunk(scores, pages, maxima, totals):
    """Make exponentials of the scores of a chunk's first `pages`, in place."""
    for head in range(scores.shape[0]):
        for row in range(scores.shape[1]):
            logits = scores[head, row, :pages]
            highest = largest_of(address_of(logits), pages)
            maxima[head, row] = highest
            totals[head, row] = exponentiate(logits, highest, logits)


@inlined
def _write_scores(scores, maxima, totals, chunk, first, end, shared):
    for head in range(scores.shape[0]):
        for row in range(scores.shape[1]):
            _copy(scores[head, row], shared.scores[head, row, first:end])
            shared.chunk_maxima[head, row, chunk] = maxima[head, row]
            shared.chunk_totals[head, row, chunk] = totals[head, row]


@inlined
def select_and_attend(weights, layer, attention, shape, shared, workspace, has_queries):
    """Select for each kv head, if its pages are not listed; then attend to the splits of each, which wait for that.

    Args:
        has_queries: what `append_and_score` returned.
    """
    progress, phase = shared.progress, layer * PHASES + ATTEND_PHASE
    sequence, cache = attention.sequence, layer_of(attention.cache, layer)
    selected = layer - attention.dense_layers
    sparse = selected >= 0
    count, splits = _count_pages_read(layer, attention, shape)
    split_pages = SPLIT_TOKENS // shape.page_size
    selections = shape.kv_heads if sparse and attention.selects else 0
    items = selections + shape.kv_heads * splits
    partials, every_page = shared.partials, np.empty(0, np.int32)
    item = claim(progress, phase, items)
    while item < items:
        head = item if item < selections else (item - selections) // splits
        while selections > 0 and claim(progress, _selection_phase(shape, layer, head), 1) == 0:
            _select(head, layer, attention, shape, shared, workspace)
        if item < selections:
            if begin_write(progress, phase, item):
                finish(progress, phase)
        else:
            if not has_queries:
                _rotate_queries(weights, layer, sequence, shape, shared.projected, workspace.queries)
                has_queries = True
            index = (item - selections) % splits
            page_ids = shared.page_ids[selected, head] if sparse else every_page
            split = Split(page_ids, index * split_pages, min((index + 1) * split_pages, count), head)
            queries, logits, partial = workspace.queries[head], workspace.split_logits, workspace.partial
            attend_split(queries, shape.rows, cache, sequence, split, attention.scale, logits, partial)
            if begin_write(progress, phase, item):
                _copy(partial.maxima, partials.maxima[head, index])
                _copy(partial.totals, partials.totals[head, index])
                _copy_rows(partial.attended, partials.attended[head, index])
                finish(progress, phase)
        item = claim(progress, phase, items)


@inlined
def _count_pages_read(layer, attention, shape):
    """Pages that each kv head reads in a layer, and the splits that they make."""
    count = min(attention.budget.pages, shape.pages) if layer >= attention.dense_layers else shape.pages
    split_pages = SPLIT_TOKENS // shape.page_size
    return count, (count + split_pages - 1) // split_pages


@inlined
def _select(head, layer, attention, shape, shared, workspace):
    """Select the pages of one kv head from its scores, and sum up the softmax mass of the others."""
    scores, importance, factors = shared.scores, workspace.importance, workspace.factors
    page_ids, rows = workspace.page_ids, scores.shape[1]
    importance[:] = 0.0
    for row in range(rows):
        if attention.cache.kind == BOUNDS:
            # A loop, as `compile` says.
            for page in range(len(importance)):
                importance[page] = scores[head, row, page]
        else:
            merge_softmax(shared.chunk_maxima[head, row], shared.chunk_totals[head, row], factors)
            add_softmax_mass(scores[head, row], factors, CHUNK_PAGES, importance)
    read = select_best(importance, attention.budget, workspace.ranks, workspace.candidates, page_ids)
    phase, selected = _selection_phase(shape, layer, head), layer - attention.dense_layers
    if begin_write(shared.progress, phase, 0):
        _copy(page_ids, shared.page_ids[selected, head])
        shared.missed_mass[selected, head] = np.float32(1.0) - read / np.float32(rows)
        finish(shared.progress, phase)


@inlined
def add_output(weights, layer, attention, shape, shared, workspace):
    """Merge the splits, and add the output projection to the residual."""
    matrix, phase = weights.matrices[layer * MATRICES + OUTPUT], layer * PHASES + OUTPUT_PHASE
    progress, inputs, attended = shared.progress, workspace.inputs, workspace.attended
    items = (matrix[OUT_CHANNELS] + LAYER_ROWS - 1) // LAYER_ROWS
    ready = False
    item = claim(progress, phase, items)
    while item < items:
        if not ready:
            _, splits = _count_pages_read(layer, attention, shape)
            for row in range(shape.rows):
                _merge_heads(shared.partials, splits, row, attended.reshape(shape.query_heads, shape.head_dim))
                order_inputs(matrix, attended, inputs[row])
            ready = True
        _add_rows(matrix, phase, item, inputs, workspace.products[0], shared)
        item = claim(progress, phase, items)


@inlined
def _merge_heads(partials, splits, row, attended):
    """Merge the first splits of a row's query heads, to `attended` [query_heads, head_dim]."""
    maxima, totals, sums = partials
    group = len(attended) // len(maxima)
    for head in range(len(maxima)):
        of_head = PartialSoftmax(maxima[head], totals[head], sums[head])
        for member in range(group):
            merge_splits(of_head, splits, row * group + member, attended[head * group + member])


@inlined
def gate_and_up(weights, layer, shared, workspace):
    """`silu(gate) * up`."""
    matrix, phase = weights.matrices[layer * MATRICES + GATE_UP], layer * PHASES + GATE_UP_PHASE
    progress, inputs, normed, gated = shared.progress, workspace.inputs, workspace.normed, shared.gated
    items = (gated.shape[1] + LAYER_ROWS - 1) // LAYER_ROWS
    ready = False
    item = claim(progress, phase, items)
    while item < items:
        if not ready:
            for row in range(len(gated)):
                _norm(shared.residual[row], weights.norms[layer, MLP_NORM], weights.epsilon, normed)
                order_inputs(matrix, normed, inputs[row])
            ready = True
        _gate_rows(matrix, item, inputs, workspace.products, gated.shape[1])
        if begin_write(progress, phase, item):
            _copy_rows(workspace.products[0], gated[:, item * LAYER_ROWS : (item + 1) * LAYER_ROWS])
            finish(progress, phase)
        item = claim(progress, phase, items)


@inlined
def add_down(weights, layer, shared, workspace):
    """Add the down projection to the residual."""
    matrix, phase = weights.matrices[layer * MATRICES + DOWN], layer * PHASES + DOWN_PHASE
    progress, inputs = shared.progress, workspace.inputs
    items = (matrix[OUT_CHANNELS] + LAYER_ROWS - 1) // LAYER_ROWS
    ready = False
    item = claim(progress, phase, items)
    while item < items:
        if not ready:
            for row in range(len(inputs)):
                order_inputs(matrix, shared.gated[row], inputs[row])
            ready = True
        _add_rows(matrix, phase, item, inputs, workspace.products[0], shared)
        item = claim(progress, phase, items)


@compiled
def _norm(hidden, weights, epsilon, normed):
    """`naive_rms_norm` of a vector; `weights` is an address."""
    address, length = address_of(hidden), len(hidden)
    dot_float32(address, address, length, length, address_of(normed), 1)
    inverse = np.float32(1.0) / np.sqrt(normed[0] / np.float32(length) + epsilon)
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
def _add_rows(matrix, phase, item, inputs, products, shared):
    """Add an item's channels of a product to the residual."""
    progress, residual = shared.progress, shared.residual
    first, end = item * LAYER_ROWS, min((item + 1) * LAYER_ROWS, residual.shape[1])
    multiply_rows(matrix, first, end, inputs, products[:, : end - first])
    if begin_write(progress, phase, item):
        for row in range(len(residual)):
            for channel in range(first, end):
                residual[row, channel] += products[row, channel - first]
        finish(progress, phase)


@compiled
def _gate_rows(matrix, item, inputs, products, channels):
    """An item's channels of `silu(gate) * up`, to the first of the `products`."""
    first = item * LAYER_ROWS
    count = min(first + LAYER_ROWS, channels) - first
    multiply_rows(matrix, first, first + count, inputs, products[0, :, :count])
    multiply_rows(matrix, channels + first, channels + first + count, inputs, products[1, :, :count])
    for row in range(len(inputs)):
        gates, ups, negated = products[0, row, :count], products[1, row, :count], products[2, row, :count]
        for channel in range(count):
            # Beyond, e^-gate is no float32; the gate is 0 there in any case.
            negated[channel] = min(-gates[channel], np.float32(87.0))
        exponentiate(negated, np.float32(0.0), negated)
        for channel in range(count):
            gates[channel] = gates[channel] / (np.float32(1.0) + negated[channel]) * ups[channel]


@compiled
def _copy(source, target):
    """Write the first elements of `source` to all of `target`; a loop, as `compile` says."""
    for i in range(len(target)):
        target[i] = source[i]


@compiled
def _copy_rows(source, target):
    """As `_copy`, of each row of two dimensions."""
    for row in range(len(target)):
        _copy(source[row], target[row])
