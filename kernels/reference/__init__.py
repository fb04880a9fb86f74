"""Every operator in plain torch: the specification that the fast versions are tested against.

`naive_<op>` here, `<op>` in `kernels.gpu` and `kernels.cpu`, have one signature. All tensors of a call are on one
device; arithmetic is float32. Lengths (`start_token`, `context_tokens`) are int32 tensors [1] on that device, so that a
captured CUDA graph can be replayed as a sequence grows. Never imports triton.
"""

from kernels.reference.decode_step import (
    naive_linear_add,
    naive_norm_linear,
    naive_norm_swiglu,
    naive_rotate_and_append,
)
from kernels.reference.float8 import FLOAT8, SMALLEST_SCALE, round_to_float8, widen
from kernels.reference.matrices import Matrix, PackedMatrix, naive_dequantize, naive_quantized_linear
from kernels.reference.page_summaries import (
    INT8_LEVELS,
    ROUNDING_MARGIN,
    SCALE_MARGIN,
    SUMMARY_VECTORS,
    TWO_LEVEL_SUMMARIES,
    KvScales,
    check_levels,
    check_summary,
    naive_append_keys_values,
)
from kernels.reference.pages import (
    SUMMARY_LOGITS,
    check_budget,
    check_selection,
    naive_choose_and_attend,
    naive_choose_pages,
    naive_dense_decode_attention,
    naive_page_scores,
    naive_select_pages,
    naive_sparse_decode_attention,
)
from kernels.reference.prefill import naive_gather_pages, naive_merge_attention
from kernels.reference.superpages import SUPERPAGE_PAGES, candidate_pages, narrows, scored_summaries
from kernels.reference.tokens import naive_apply_rope, naive_rms_norm, naive_swiglu
from kernels.reference.whole_step import LayerOperands, NaiveWholeStep, PageChoice, StepOutcome, StepPages

__all__ = [
    "FLOAT8",
    "INT8_LEVELS",
    "ROUNDING_MARGIN",
    "SCALE_MARGIN",
    "SMALLEST_SCALE",
    "SUMMARY_LOGITS",
    "SUMMARY_VECTORS",
    "SUPERPAGE_PAGES",
    "TWO_LEVEL_SUMMARIES",
    "KvScales",
    "LayerOperands",
    "Matrix",
    "NaiveWholeStep",
    "PackedMatrix",
    "PageChoice",
    "StepOutcome",
    "StepPages",
    "candidate_pages",
    "check_budget",
    "check_levels",
    "check_selection",
    "check_summary",
    "naive_append_keys_values",
    "naive_apply_rope",
    "naive_choose_and_attend",
    "naive_choose_pages",
    "naive_dense_decode_attention",
    "naive_dequantize",
    "naive_gather_pages",
    "naive_linear_add",
    "naive_merge_attention",
    "naive_norm_linear",
    "naive_norm_swiglu",
    "naive_page_scores",
    "naive_quantized_linear",
    "naive_rms_norm",
    "naive_rotate_and_append",
    "naive_select_pages",
    "naive_sparse_decode_attention",
    "naive_swiglu",
    "narrows",
    "round_to_float8",
    "scored_summaries",
    "widen",
]
