"""The operators for NVIDIA GPUs, in Triton: one file an operator, specified in `kernels.reference`.

Grids depend on shapes alone and lengths are read on the device, so every launch can be captured in a CUDA graph.
"""

from kernels.gpu.append_keys_values import append_keys_values
from kernels.gpu.apply_rope import apply_rope
from kernels.gpu.choose_and_attend import choose_and_attend
from kernels.gpu.choose_pages import choose_pages
from kernels.gpu.decode_attention import dense_decode_attention, sparse_decode_attention
from kernels.gpu.decode_linear import linear_add, norm_linear, norm_swiglu
from kernels.gpu.dequantize import dequantize
from kernels.gpu.gather_pages import gather_pages
from kernels.gpu.merge_attention import merge_attention
from kernels.gpu.page_scores import page_scores
from kernels.gpu.quantized_linear import quantized_linear
from kernels.gpu.rms_norm import rms_norm
from kernels.gpu.rotate_and_append import rotate_and_append
from kernels.gpu.select_pages import select_pages
from kernels.gpu.swiglu import swiglu

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
