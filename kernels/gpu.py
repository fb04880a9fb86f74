"""The operators for NVIDIA GPUs, in Triton: a `kernels.contract.Kernels`, specified in `kernels.reference`.

Grids depend on shapes alone and lengths are read on the device, so every launch can be captured in a CUDA graph.
"""

from kernels.append.gpu import append_keys_values
from kernels.append.gpu_rotate import rotate_and_append
from kernels.attend.gpu import sparse_decode_attention
from kernels.attend.gpu_choose_and_attend import choose_and_attend
from kernels.attend.gpu_dense import dense_decode_attention
from kernels.linear.gpu import linear_add, norm_linear, norm_swiglu
from kernels.linear.gpu_dequantize import dequantize
from kernels.linear.gpu_quantized import quantized_linear
from kernels.prefill.gpu_gather import gather_pages
from kernels.prefill.gpu_merge import merge_attention
from kernels.prefill.gpu_norm import rms_norm
from kernels.prefill.gpu_rope import apply_rope
from kernels.prefill.gpu_swiglu import swiglu
from kernels.score.gpu import page_scores
from kernels.select.gpu import select_pages
from kernels.select.gpu_choose_pages import choose_pages

# A step is a CUDA graph of these operators.
WholeStep = None

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
