"""The operators for the CPU: Numba for what a decode step does, plain torch for the rest.

They are a `kernels.contract.Kernels`, specified in `kernels.reference`; `WholeStep` does a whole step at once.
"""

from kernels.cpu.append_keys_values import append_keys_values
from kernels.cpu.choose_and_attend import choose_and_attend
from kernels.cpu.choose_pages import choose_pages
from kernels.cpu.decode_attention import dense_decode_attention, sparse_decode_attention
from kernels.cpu.decode_step import linear_add, norm_linear, norm_swiglu, rotate_and_append
from kernels.cpu.dequantize import dequantize
from kernels.cpu.gather_pages import gather_pages
from kernels.cpu.merge_attention import merge_attention
from kernels.cpu.page_scores import page_scores
from kernels.cpu.quantized_linear import quantized_linear
from kernels.cpu.select_pages import select_pages
from kernels.cpu.tokens import apply_rope, rms_norm, swiglu
from kernels.cpu.whole_step import WholeStep

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
