"""What the operators work on, and which operators there are: one vocabulary for specification, GPU and CPU.

A *page* is `page_size` consecutive tokens of one sequence in one layer's cache. Pages lie anywhere in a pool; the page
table of a sequence says where. Beside its keys and values a page keeps a *summary* of its keys, which selection scores.

All tensors of a call are on one device. Lengths are tensors, so that a captured CUDA graph can be replayed as a
sequence grows. Knows nothing of models, and imports neither triton nor numba.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch

from kernels.float8 import FLOAT8, widen

# Summaries in 8 bits are integers from minus this to this.
INT8_LEVELS = 127
# In steps: more than the error of a quotient, so that bounds are not rounded inwards because of that error.
ROUNDING_MARGIN = 1e-4
# Makes INT8_LEVELS steps no smaller than the largest element of a vector.
SCALE_MARGIN = 1e-6


class Summary(NamedTuple):
    """What stands for the keys of a page: vectors taken element-wise over them.

    Args:
        name: "bounds" is minimum and maximum (arXiv 2406.10774), "mean" the mean.
        vectors: how many.
        scores_are_logits: whether a page has one score for each query head, a logit, so that a softmax over the pages
            estimates its attention. Otherwise it has one score for each kv head, an upper bound of its logits.
        is_bounds: whether vectors in 8 bits are rounded outwards, so that they stay bounds.
    """

    name: str
    vectors: int
    scores_are_logits: bool
    is_bounds: bool


SUMMARIES = {
    summary.name: summary
    for summary in (
        Summary("bounds", vectors=2, scores_are_logits=False, is_bounds=True),
        Summary("mean", vectors=1, scores_are_logits=True, is_bounds=False),
    )
}


class TensorSpec(NamedTuple):
    """Shape and dtype of a tensor that is to be allocated."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


@dataclass(frozen=True)
class CacheLayout:
    """How a layer's keys and values are kept; the same for all layers of a model.

    Args:
        page_size: tokens in a page.
        kv_heads: of each layer.
        head_dim: channels of a head.
        dtype: of keys and values: floating, or float8_e4m3fn with a scale for each token and kv head.
        summary: of a page's keys.
        summary_dtype: floating, or int8 with a scale for each vector.
    """

    page_size: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype
    summary: Summary
    summary_dtype: torch.dtype

    @property
    def is_float8(self) -> bool:
        """Whether keys and values are codes with scales."""
        return self.dtype == FLOAT8

    @property
    def has_int8_summaries(self) -> bool:
        """Whether summaries are int8 with scales."""
        return self.summary_dtype == torch.int8

    def specs(self, pages: int) -> dict[str, TensorSpec]:
        """The tensors of a `LayerCache` of so many physical pages, by name, without those it does not have."""
        tokens = (pages, self.kv_heads, self.page_size)
        vectors = (pages, self.kv_heads, self.summary.vectors)
        specs = {
            "key_pages": TensorSpec((*tokens, self.head_dim), self.dtype),
            "value_pages": TensorSpec((*tokens, self.head_dim), self.dtype),
            "summaries": TensorSpec((*vectors, self.head_dim), self.summary_dtype),
        }
        if self.has_int8_summaries:
            specs["summary_scales"] = TensorSpec(vectors, torch.float32)
        if self.is_float8:
            specs["key_scales"] = specs["value_scales"] = TensorSpec(tokens, torch.float32)
        return specs


class LayerCache(NamedTuple):
    """The physical pages of one layer; or those of all layers, with layers as the first dimension of every tensor.

    Args:
        layout: of the tensors that follow.
        key_pages, value_pages: [physical_pages, kv_heads, page_size, head_dim] in the layout's dtype.
        summaries: [physical_pages, kv_heads, vectors, head_dim], of each page's keys.
        summary_scales: float32 [physical_pages, kv_heads, vectors], what a step of an int8 summary stands for; None for
            floating ones.
        key_scales, value_scales: float32 [physical_pages, kv_heads, page_size], what a code of 1 stands for; None for
            floating pages.
    """

    layout: CacheLayout
    key_pages: torch.Tensor
    value_pages: torch.Tensor
    summaries: torch.Tensor
    summary_scales: torch.Tensor | None = None
    key_scales: torch.Tensor | None = None
    value_scales: torch.Tensor | None = None

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """The tensors that it has, in the order of the fields."""
        return tuple(tensor for tensor in self[1:] if tensor is not None)

    def layer(self, index: int) -> LayerCache:
        """The cache of one layer."""
        return LayerCache(self.layout, *(None if tensor is None else tensor[index] for tensor in self[1:]))

    def keys_at(self, *index: torch.Tensor | int | slice) -> torch.Tensor:
        """The keys at `index` (pages, kv heads, slots), float32 [..., head_dim]."""
        return widen(self.key_pages[index], None if self.key_scales is None else self.key_scales[index])

    def values_at(self, *index: torch.Tensor | int | slice) -> torch.Tensor:
        """The values, as `keys_at`."""
        return widen(self.value_pages[index], None if self.value_scales is None else self.value_scales[index])


class SequenceView(NamedTuple):
    """Where a sequence's pages are, and how far it goes.

    Args:
        page_table: int32 [logical_pages], logical to physical; may be longer than the sequence.
        length_tokens: int32 [1], tokens of the sequence, those included whose keys are being written.
    """

    page_table: torch.Tensor
    length_tokens: torch.Tensor

    @property
    def logical_pages(self) -> int:
        """How many pages the table has room for."""
        return len(self.page_table)

    def last_positions(self, tokens: int) -> torch.Tensor:
        """int32 [tokens], the positions of the last so many."""
        return self.length_tokens + torch.arange(-tokens, 0, dtype=torch.int32, device=self.length_tokens.device)

    def before_last(self, tokens: int) -> SequenceView:
        """The sequence without its last so many tokens."""
        return self._replace(length_tokens=self.length_tokens - tokens)


class PageBudget(NamedTuple):
    """How many pages of each kv head a token reads.

    Args:
        pages: the total, including those that are always read.
        sink_pages: the first pages of the sequence, which are always read.
        recent_pages: full pages before the last token's page that are always read; that page itself always is, too.
    """

    pages: int
    sink_pages: int
    recent_pages: int

    def check(self) -> None:
        """Raises ValueError if the budget is smaller than what is always read."""
        if self.pages < 1 + self.sink_pages + self.recent_pages:
            raise ValueError(f"a budget of {self.pages} pages is less than the pages that are always read")

    def reads_all(self, pages: int) -> bool:
        """Whether a sequence of so many pages is read whole: no score could leave any page out."""
        return pages <= self.pages


def check_selection(scores: torch.Tensor, budget: PageBudget, logits: bool) -> None:
    """Raises ValueError if the budget is smaller than what is always read, or if several rows are no logits."""
    budget.check()
    if scores.shape[1] > 1 and not logits:
        raise ValueError(f"scores must have one row a kv head, got {scores.shape[1]}")


class SelectedPages(NamedTuple):
    """The pages that one token reads.

    Args:
        page_ids: int32 [kv_heads, budget], logical, ascending, padded with -1.
        page_counts: int32 [kv_heads], how many of them are real.
        missed_mass: float32 [kv_heads], the softmax mass that the summaries give to the other pages; None where scores
            are no logits.
    """

    page_ids: torch.Tensor
    page_counts: torch.Tensor
    missed_mass: torch.Tensor | None = None


class PartialAttention(NamedTuple):
    """The attention of some queries over some of their keys.

    Args:
        attended: [tokens, heads, head_dim], normalised over these keys; floating, the last dimension contiguous.
        log_sums: float32 [heads, tokens], the logarithm of the sum of the exponentials of the logits.
    """

    attended: torch.Tensor
    log_sums: torch.Tensor


class RopeTables(NamedTuple):
    """cosines, sines: float32 [max_tokens, head_dim // 2], of every position."""

    cosines: torch.Tensor
    sines: torch.Tensor


class HeadNorms(NamedTuple):
    """Root mean square norms of each query and key, as Qwen3 has them: query, key: [head_dim]."""

    query: torch.Tensor
    key: torch.Tensor
    epsilon: float


class PackedMatrix(NamedTuple):
    """A matrix of quantised weights, `scale * q + minimum` with a scale and a minimum for each group of inputs.

    A row is cut into runs of 16 bytes, what one thread of a GPU loads at once: four words with 32 / bits fields each.
    Word j of a run holds the run's channels j, 4 + j, 8 + j ... from its lowest bits on, so that field k of the four
    words belongs to four consecutive inputs. A row's last group is padded to its full size.

    Args:
        packed: int32 [out_channels, words], the unsigned q.
        scales, minimums: floating [out_channels, groups].
        bits: of each q, 4 or 8.
    """

    packed: torch.Tensor
    scales: torch.Tensor
    minimums: torch.Tensor
    bits: int


# A weight matrix of a step: [out_channels, in_channels] in a floating dtype, or quantised.
Matrix = torch.Tensor | PackedMatrix


class LayerDecodeWeights(NamedTuple):
    """One layer's weights as a decode step takes them; None for what the model does not have."""

    attention_norm: torch.Tensor
    qkv: Matrix
    output: Matrix
    mlp_norm: torch.Tensor
    gate_up: Matrix
    down: Matrix
    qkv_bias: torch.Tensor | None = None
    output_bias: torch.Tensor | None = None
    query_norm: torch.Tensor | None = None
    key_norm: torch.Tensor | None = None

    def head_norms(self, epsilon: float) -> HeadNorms | None:
        """Norms of queries and keys, if the model has them."""
        return None if self.query_norm is None else HeadNorms(self.query_norm, self.key_norm, epsilon)


class StepOutcome(NamedTuple):
    """The results of a whole step.

    Args:
        logits: float32 [rows, vocab_size].
        selected: the pages of each selecting layer, with layers as the first dimension, except of `page_counts`, which
            are the same in all of them. None if no layer selects.
        first_layer: the first of the selecting layers.
    """

    logits: torch.Tensor
    selected: SelectedPages | None
    first_layer: int


class WholeStep(Protocol):
    """All layers of a model and its head, run on the next token, or on a few that are known."""

    def __init__(
        self,
        layers: Sequence[LayerDecodeWeights],
        final_norm: torch.Tensor,
        head: Matrix,
        epsilon: float,
        rope: RopeTables,
    ) -> None: ...

    def __call__(
        self,
        hidden: torch.Tensor,
        cache: LayerCache,
        sequence: SequenceView,
        budget: PageBudget | None,
        scale: float,
        dense_layers: int = 0,
        pages: SelectedPages | None = None,
    ) -> StepOutcome: ...

    def with_rope(self, rope: RopeTables) -> WholeStep: ...

    def close(self) -> None: ...


class Kernels(Protocol):
    """The operators of a device, as `kernels.reference` specifies them: the type of `kernels.gpu` and `kernels.cpu`.

    `WholeStep` is None if a step is a CUDA graph of the other operators.
    """

    WholeStep: type[WholeStep] | None

    # Append.
    def append_keys_values(
        self, keys: torch.Tensor, values: torch.Tensor, cache: LayerCache, sequence: SequenceView
    ) -> None: ...

    def rotate_and_append(
        self,
        projected: torch.Tensor,
        norms: HeadNorms | None,
        rope: RopeTables,
        cache: LayerCache,
        sequence: SequenceView,
    ) -> torch.Tensor: ...

    # Score, select, attend.
    def page_scores(
        self, query: torch.Tensor, cache: LayerCache, sequence: SequenceView, scale: float
    ) -> torch.Tensor: ...

    def select_pages(
        self, scores: torch.Tensor, length_tokens: torch.Tensor, page_size: int, budget: PageBudget, logits: bool
    ) -> SelectedPages: ...

    def choose_pages(
        self, query: torch.Tensor, cache: LayerCache, sequence: SequenceView, budget: PageBudget, scale: float
    ) -> SelectedPages: ...

    def sparse_decode_attention(
        self, query: torch.Tensor, cache: LayerCache, sequence: SequenceView, selected: SelectedPages, scale: float
    ) -> torch.Tensor: ...

    def dense_decode_attention(
        self, query: torch.Tensor, cache: LayerCache, sequence: SequenceView, scale: float
    ) -> torch.Tensor: ...

    def choose_and_attend(
        self, query: torch.Tensor, cache: LayerCache, sequence: SequenceView, budget: PageBudget, scale: float
    ) -> tuple[torch.Tensor, SelectedPages]: ...

    # Products.
    def norm_linear(
        self,
        hidden: torch.Tensor,
        norm_weight: torch.Tensor,
        epsilon: float,
        matrix: Matrix,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor: ...

    def norm_swiglu(
        self, hidden: torch.Tensor, norm_weight: torch.Tensor, epsilon: float, gate_up: Matrix
    ) -> torch.Tensor: ...

    def linear_add(
        self, hidden: torch.Tensor, matrix: Matrix, residual: torch.Tensor, bias: torch.Tensor | None = None
    ) -> None: ...

    def quantized_linear(
        self, hidden: torch.Tensor, matrix: PackedMatrix, bias: torch.Tensor | None = None
    ) -> torch.Tensor: ...

    def dequantize(self, matrix: PackedMatrix, in_channels: int, dtype: torch.dtype) -> torch.Tensor: ...

    # Prefill.
    def rms_norm(
        self, hidden: torch.Tensor, weight: torch.Tensor, epsilon: float, residual: torch.Tensor | None = None
    ) -> torch.Tensor: ...

    def apply_rope(
        self, queries: torch.Tensor, keys: torch.Tensor, rope: RopeTables, positions: torch.Tensor
    ) -> None: ...

    def swiglu(self, gate_up: torch.Tensor) -> torch.Tensor: ...

    def gather_pages(
        self, cache: LayerCache, page_table: torch.Tensor, tokens: int, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]: ...

    def merge_attention(
        self,
        part: PartialAttention,
        other: PartialAttention,
        dtype: torch.dtype,
        out: PartialAttention | None = None,
    ) -> PartialAttention: ...
