"""All layers of a decode step and the head as one operator."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from kernels.append.reference import naive_rotate_and_append
from kernels.attend.reference import (
    naive_choose_and_attend,
    naive_dense_decode_attention,
    naive_sparse_decode_attention,
)
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
from kernels.linear.reference import naive_linear_add, naive_norm_linear, naive_norm_swiglu


class NaiveWholeStep:
    """The layers of one model, run on the next token, or on a few that are known.

    Args:
        layers: weights of each layer.
        final_norm: [hidden_size].
        head: [vocab_size, hidden_size].
        epsilon: of all norms.
        rope: of all positions.
    """

    def __init__(
        self,
        layers: Sequence[LayerDecodeWeights],
        final_norm: torch.Tensor,
        head: Matrix,
        epsilon: float,
        rope: RopeTables,
    ) -> None:
        self._layers = layers
        self._final_norm = final_norm
        self._head = head
        self._epsilon = epsilon
        self._rope = rope

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
        """Run the last tokens of a sequence, each as if it were the last, and write their keys and values to the pages.

        Args:
            hidden: [rows, hidden_size], their embeddings.
            cache: of all layers.
            sequence: the tokens included.
            budget: of the layers that select, for a single token; None where all layers read every page.
            scale: of the attention's logits.
            dense_layers: the first layers, which read every page.
            pages: what the other layers read, with layers as in `StepOutcome`, and as many pages for each kv head;
                takes the place of what they would select by the budget. None lets them select.
        """
        residual = hidden.float().clone()
        first_layer = len(self._layers) if budget is None and pages is None else dense_layers
        selections = []
        for index, layer in enumerate(self._layers):
            own = cache.layer(index)
            projected = naive_norm_linear(residual, layer.attention_norm, self._epsilon, layer.qkv, layer.qkv_bias)
            norms = layer.head_norms(self._epsilon)
            rows = []
            for row in range(len(hidden)):
                up_to_row = sequence.before_last(len(hidden) - 1 - row)
                query = naive_rotate_and_append(projected[row : row + 1], norms, self._rope, own, up_to_row)[0]
                if index < first_layer:
                    attended = naive_dense_decode_attention(query, own, up_to_row, scale)
                elif pages is not None:
                    of_layer = SelectedPages(pages.page_ids[index - first_layer], pages.page_counts)
                    attended = naive_sparse_decode_attention(query, own, up_to_row, of_layer, scale)
                else:
                    attended, selected = naive_choose_and_attend(query, own, up_to_row, budget, scale)
                    selections.append(selected)
                rows.append(attended.flatten())
            naive_linear_add(torch.stack(rows), layer.output, residual, layer.output_bias)
            gated = naive_norm_swiglu(residual, layer.mlp_norm, self._epsilon, layer.gate_up)
            naive_linear_add(gated, layer.down, residual)
        logits = naive_norm_linear(residual, self._final_norm, self._epsilon, self._head).float()
        return StepOutcome(logits, _stack(selections) if pages is None else pages, first_layer)


def _stack(selections: Sequence[SelectedPages]) -> SelectedPages | None:
    """What several layers selected, as `StepOutcome` holds it."""
    if not selections:
        return None
    ids, counts, masses = zip(*selections, strict=True)
    return SelectedPages(torch.stack(ids), counts[0], None if masses[0] is None else torch.stack(masses))
