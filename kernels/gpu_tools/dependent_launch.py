"""Programmatic dependent launch: a kernel starts while the one before it in the stream still runs.

On Hopper and later a launch costs about as much as a small kernel. Launched this way its programs take the places that
become free, read what no kernel writes, and wait only then for the kernel before them to have finished. Measured on an
H100, a small kernel takes 0.8 us in a chain of such launches and 1.25 us in one of ordinary ones.

The next kernel may start when the programs of this one end, or as soon as all of them have called
`let_next_kernel_start`. That pays where the next kernel has constants to read; where it only waits, its programs take
places and registers from those that work (the kernels of attention took a tenth longer). It is called after the wait:
called before, by one kernel after the other, it would let several kernels wait at once. Where the next kernel has much
shared memory and this one little it can cost more than it brings: those that start early crowd onto a few
multiprocessors (`docs/kernels.md`).

The rule that keeps this right: every kernel so launched calls `wait_for_previous_kernel` before it writes anything, and
before it reads anything that the kernel before it may have written. A kernel lets the next one start only after its own
wait, so that whatever came earlier is done by then and may be read at once.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl

# Compute capability 9.0: Hopper.
FIRST_CAPABILITY = (9, 0)


@triton.jit
def wait_for_previous_kernel(DEPENDENT: tl.constexpr):
    """Return once all that earlier kernels wrote can be read."""
    if DEPENDENT:
        tl.extra.cuda.gdc_wait()


@triton.jit
def let_next_kernel_start(DEPENDENT: tl.constexpr):
    """The next kernel's programs may take places that are free; they wait for this kernel's end by themselves."""
    if DEPENDENT:
        tl.extra.cuda.gdc_launch_dependents()


@lru_cache
def launches_dependently(device: torch.device) -> bool:
    """Whether kernels on `device` are launched this way; never where they are interpreted."""
    if device.type != "cuda" or triton.knobs.runtime.interpret:
        return False
    return torch.cuda.get_device_capability(device) >= FIRST_CAPABILITY
