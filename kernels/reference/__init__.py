"""Every operator in plain torch: the specification that the fast versions are tested against.

`naive_<op>` here, `<op>` in `kernels.gpu` and `kernels.cpu`, have one signature, on the data of `kernels.contract`.
Arithmetic is float32. Never imports triton.
"""

from kernels.contract import check_selection
from kernels.reference.decode_step import (
    naive_linear_add,
    naive_norm_linear,
    naive_norm_swiglu,
    naive_rotate_and_append,
)
from kernels.reference.matrices import naive_dequantize, naive_quantized_linear
from kernels.reference.page_summaries import naive_append_keys_values
from kernels.reference.pages import (
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
from kernels.reference.whole_step import NaiveWholeStep

__all__ = [
    "SUPERPAGE_PAGES",
    "NaiveWholeStep",
    "candidate_pages",
    "check_selection",
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
    "scored_summaries",
]
