"""The operators for the CPU: Numba for what a decode step does, plain torch for the rest.

They are a `kernels.contract.Kernels`, specified in `kernels.reference`; `WholeStep` does a whole step at once.
"""

from kernels.append.cpu import append_keys_values, rotate_and_append
from kernels.attend.cpu import choose_and_attend, dense_decode_attention, sparse_decode_attention
from kernels.linear.cpu import dequantize, linear_add, norm_linear, norm_swiglu, quantized_linear
from kernels.prefill.cpu import apply_rope, gather_pages, merge_attention, rms_norm, swiglu
from kernels.score.cpu import page_scores
from kernels.select.cpu import choose_pages, select_pages
from kernels.step.cpu import WholeStep

__all__ = [
    "WholeStep",
    "append_keys_values",
    "apply_rope",
    "choose_and_attend",
    "choose_pages",
    "dense_decode_attention",
    "dequantize",
    "gather_pages",
    "linear_add",
    "merge_attention",
    "norm_linear",
    "norm_swiglu",
    "page_scores",
    "quantized_linear",
    "rms_norm",
    "rotate_and_append",
    "select_pages",
    "sparse_decode_attention",
    "swiglu",
]
