"""Compile dense attention for one row and for several without a GPU, and print as JSON what decides the bits of a row.

These are the layouts in which sums over channels, tokens and splits are made, and how many floating instructions of
each kind there are: `test_compilation.py` compares them.
"""

from __future__ import annotations

import json
import re
from collections import Counter

import torch
import triton

import kernels.gpu
from kernels.contract import SUMMARIES, CacheLayout, LayerCache, SequenceView
from tests.kernels.compile_for_gpu import DTYPE, CompiledAtLaunch, floats, integers, replace_kernels

FLOATING = r"\b(fma\.rn|mul|add|sub|max|ex2\.approx\.ftz|rsqrt\.approx\.ftz|div\.full)\.f32|\b(dp4a|mma\.sync)\b"
LAYOUT = re.compile(r"^(#\w+) = (#ttg\.(?:blocked|nvidia_mma|linear)<.*>)$", re.MULTILINE)
REDUCTION = re.compile(r'"tt\.reduce"\([^)]*\) <\{axis = (\d).*?\}\) : \((tensor<[^)]*>)[^>]*?\) ->', re.DOTALL)
PRODUCT = re.compile(r"= tt\.dot .* : (.*?) loc")


def describe(compiled) -> dict:
    """Counts of floating instructions, and what is summed up in which layout."""
    code, layouts = compiled.asm["ttgir"], dict(LAYOUT.findall(compiled.asm["ttgir"]))
    sums = [f"{axis} {tensor}" for axis, tensor in REDUCTION.findall(code)] + PRODUCT.findall(code)
    named = re.compile("|".join(sorted(map(re.escape, layouts), key=len, reverse=True)))
    spelt = {named.sub(lambda name: layouts[name.group()], each) for each in sums}
    counts = Counter("".join(kind) for kind in re.findall(FLOATING, compiled.asm["ptx"]))
    return {"counts": counts, "sums": sorted(re.sub(r" loc\(.*?\)|\s", "", each) for each in spelt)}


def run() -> dict[int, dict]:
    """By rows."""
    found = {}
    layout = CacheLayout(4, 8, 128, DTYPE, SUMMARIES["mean"], torch.int8)
    specs = layout.specs(8)
    cache = LayerCache(layout, **{name: floats(*shape, dtype=dtype) for name, (shape, dtype) in specs.items()})
    for rows in (1, 4, 8):
        # With groups of 4, four rows are as many queries as one is padded to.
        sequence = SequenceView(integers(4096), integers(1))
        kernels.gpu.dense_decode_attention(floats(rows, 32, 128), cache, sequence, 0.1)
        found[rows] = describe(CompiledAtLaunch.newest)
    return found


if __name__ == "__main__":
    replace_kernels()
    triton.knobs.runtime.interpret = True  # so that the operators take tensors on the CPU
    print(json.dumps(run()))
