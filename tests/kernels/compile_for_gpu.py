"""Compile every GPU kernel on a machine without a GPU, and print their names: `test_compilation.py` runs it.

Kernels are recorded at their launch by the operators, which are called with tensors on the CPU as where kernels are
interpreted; what is recorded goes through Triton's compiler down to machine code for compute capability 9.0.
"""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import kernels.gpu
from kernels.contract import (
    SUMMARIES,
    CacheLayout,
    LayerCache,
    Matrix,
    PackedMatrix,
    PageBudget,
    PartialAttention,
    RopeTables,
    SequenceView,
)
from kernels.float8 import FLOAT8

HOPPER = GPUTarget("cuda", 90, 32)
TYPES = {
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.float32: "*fp32",
    FLOAT8: "*fp8e4nv",
    torch.int64: "*i64",
    torch.int32: "*i32",
    torch.int8: "*i8",
}
OPTIONS = {"num_warps", "num_stages", "launch_pdl"}
# What operators set otherwise where kernels are interpreted.
AS_COMPILED = {"INTERPRETED": False, "PREFETCH": True, "DEPENDENT": True, "launch_pdl": True}
OF_HOPPER = {
    "multiprocessors": lambda device: 132,
    "shared_memory_bytes": lambda device: 227 * 1024,
    "as_codes": lambda pages: pages,
    "uses_grid_barrier": lambda grid, device: math.prod(grid) <= 132,
}
KV_HEADS, GROUP, HEAD_DIM, PAGE_SIZE = 2, 4, 128, 16
DTYPE = torch.bfloat16


class CompiledAtLaunch:
    """Takes the place of a kernel: compiles it for the arguments of each launch, and launches nothing."""

    compiled: set[str] = set()
    newest: Any = None  # what the compiler made last

    def __init__(self, kernel: triton.JITFunction) -> None:
        self._kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]):
        return self._compile

    def _compile(self, *arguments: Any, **named: Any) -> None:
        named |= {name: value for name, value in AS_COMPILED.items() if name in named}
        options = {name: named.pop(name) for name in OPTIONS & named.keys()}
        values = dict(zip(self._kernel.arg_names, arguments, strict=False)) | named
        signature, constants, attributes = {}, {}, {}
        for index, parameter in enumerate(self._kernel.params):
            value = values[parameter.name]
            if parameter.is_constexpr or (isinstance(value, int) and value == 1):
                signature[parameter.name], constants[index,] = "constexpr", value
            elif isinstance(value, torch.Tensor):
                signature[parameter.name], attributes[index,] = TYPES[value.dtype], [["tt.divisibility", 16]]
            elif isinstance(value, int):
                signature[parameter.name] = "i32"
                if value % 16 == 0:
                    attributes[index,] = [["tt.divisibility", 16]]
            else:
                signature[parameter.name] = "fp32"
        source = ASTSource(self._kernel, signature, constants, attributes)
        CompiledAtLaunch.newest = triton.compile(source, target=HOPPER, options=options)
        self.compiled.add(self._kernel.__name__)


def replace_kernels() -> set[str]:
    """Put a `CompiledAtLaunch` in the place of every kernel; returns their names."""
    names = set()
    root = Path(kernels.__file__).parent
    for path in sorted((*root.glob("*/gpu*.py"), *root.glob("gpu_tools/[a-z]*.py"))):
        module = importlib.import_module(f"kernels.{path.parent.name}.{path.stem}")
        for name, value in vars(module).copy().items():
            if isinstance(value, triton.JITFunction) and name.endswith("_kernel") and name.startswith("_"):
                setattr(module, name, CompiledAtLaunch(value))
                names.add(name)
        for name, of_hopper in OF_HOPPER.items():
            if hasattr(module, name):
                setattr(module, name, of_hopper)
    return names


def integers(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.int32)


def floats(*shape: int, dtype: torch.dtype = DTYPE) -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype)


def rope_tables() -> RopeTables:
    angles = floats(64, HEAD_DIM // 2, dtype=torch.float32)
    return RopeTables(angles, angles)


def run_paged_operators(float8: bool) -> None:
    """Those that read and write the cache."""
    ops, length = kernels.gpu, integers(1)
    query = floats(KV_HEADS * GROUP, HEAD_DIM)
    new = floats(3, KV_HEADS, HEAD_DIM)
    projected = floats(1, (KV_HEADS * GROUP + 2 * KV_HEADS) * HEAD_DIM)
    budget = PageBudget(40, 1, 1)
    for summary in ("bounds", "mean"):
        dtype = FLOAT8 if float8 else DTYPE
        layout = CacheLayout(PAGE_SIZE, KV_HEADS, HEAD_DIM, dtype, SUMMARIES[summary], torch.int8)
        specs = layout.specs(8)
        cache = LayerCache(layout, **{name: floats(*shape, dtype=dtype) for name, (shape, dtype) in specs.items()})
        ops.append_keys_values(new, new, cache, SequenceView(integers(8), length))
        for rows in (1, 4):
            of_rows = projected.expand(rows, -1).contiguous()
            ops.rotate_and_append(of_rows, None, rope_tables(), cache, SequenceView(integers(8), length))
        # Selected each by itself, and by several programs.
        for logical_pages in (700, 10000):
            ops.choose_and_attend(query, cache, SequenceView(integers(logical_pages), length), budget, 0.1)
    for logical_pages in (700, 10000):
        scores = floats(KV_HEADS, GROUP, logical_pages, dtype=torch.float32)
        ops.select_pages(scores, length, PAGE_SIZE, budget, True)
    # Over 8-bit pages two programs share a multiprocessor, and use no grid barrier.
    ops.dense_decode_attention(query, cache, SequenceView(integers(1100), length), 0.1)
    ops.dense_decode_attention(query.expand(8, -1, -1), cache, SequenceView(integers(1100), length), 0.1)
    ops.gather_pages(cache, integers(8), 100, DTYPE)


def draw_matrix(width: int, bits: int) -> Matrix:
    """Of 256 rows."""
    if bits == 16:
        return floats(256, width)
    groups = floats(256, width // 32, dtype=torch.float16)
    return PackedMatrix(integers(256, width * bits // 32), groups, groups, bits)


def run_other_operators() -> None:
    """Those of tokens and of weights."""
    ops, width = kernels.gpu, 512
    for bits in (16, 8, 4):
        uneven = draw_matrix(2560, bits)  # whose rows end in a smaller tile
        ops.norm_linear(floats(1, 2560), floats(2560), 1e-5, uneven)
        hidden, norm, matrix = floats(1, width), floats(width), draw_matrix(width, bits)
        ops.norm_linear(hidden, norm, 1e-5, matrix)
        ops.norm_swiglu(hidden, norm, 1e-5, matrix)
        ops.linear_add(hidden, matrix, floats(1, 256))
        ops.linear_add(floats(3, width), matrix, floats(3, 256))
    ops.quantized_linear(floats(64, width), matrix)
    ops.rms_norm(floats(3, width), norm, 1e-5, floats(3, width))
    ops.swiglu(floats(3, width))
    ops.apply_rope(floats(3, 8, HEAD_DIM), floats(3, KV_HEADS, HEAD_DIM), rope_tables(), integers(3))
    part = PartialAttention(floats(3, 8, HEAD_DIM), floats(8, 3, dtype=torch.float32))
    ops.merge_attention(part, part, DTYPE)


if __name__ == "__main__":
    names = replace_kernels()
    triton.knobs.runtime.interpret = True  # so that the operators take tensors on the CPU
    run_other_operators()
    run_paged_operators(float8=False)
    run_paged_operators(float8=True)
    print(*sorted(CompiledAtLaunch.compiled))
    sys.exit(f"not compiled: {sorted(left)}" if (left := names - CompiledAtLaunch.compiled) else 0)
