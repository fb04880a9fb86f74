"""Every operator in plain torch: the specification that the fast versions are tested against.

`naive_<op>` here and `<op>` in `kernels.gpu` and `kernels.cpu` have the same signature, on the data of
`kernels.contract`. Arithmetic is float32. Never imports triton.
"""

from kernels.append.reference import naive_append_keys_values, naive_rotate_and_append
from kernels.attend.reference import (
    naive_choose_and_attend,
    naive_dense_decode_attention,
    naive_sparse_decode_attention,
)
from kernels.contract import check_selection
from kernels.linear.reference import (
    naive_dequantize,
    naive_linear_add,
    naive_norm_linear,
    naive_norm_swiglu,
    naive_quantized_linear,
)
from kernels.prefill.reference import (
    naive_apply_rope,
    naive_gather_pages,
    naive_merge_attention,
    naive_rms_norm,
    naive_swiglu,
)
from kernels.score.reference import naive_page_scores
from kernels.select.reference import naive_choose_pages, naive_select_pages
from kernels.step.reference import NaiveWholeStep

__all__ = [
    "NaiveWholeStep",
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
]
