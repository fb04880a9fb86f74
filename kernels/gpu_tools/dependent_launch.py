"""Programmatic dependent launch: a kernel starts while the one before it in the stream still runs.

On Hopper and later a launch costs about as much as a small kernel. With a dependent launch the kernel's programs start
on multiprocessors as these become free, read what no kernel writes, and only then wait for the kernel before them to
finish. Measured on an H100, a small kernel takes 0.8 us in a chain of dependent launches and 1.25 us in one of ordinary
launches.

The next kernel may start when the programs of this one end, or as soon as all of them have called
`let_next_kernel_start`. Calling it pays if the next kernel has constants to read; if it can only wait, its programs
take room and registers from those that work (the kernels of attention took a tenth longer). It is called after the
wait: called before it, by one kernel after the other, it would let several kernels wait at once. If the next kernel
needs much shared memory and this one little, it can cost more than it gains: programs that start early crowd onto a few
multiprocessors (`docs/kernels.md`).

The rule that keeps this correct: every kernel launched dependently calls `wait_for_previous_kernel` before it writes
anything, and before it reads anything that the kernel before it may have written. A kernel lets the next one start only
after its own wait, so that all earlier kernels have finished by then and their results may be read at once.
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
    """Return once everything that earlier kernels wrote can be read."""
    if DEPENDENT:
        tl.extra.cuda.gdc_wait()


@triton.jit
def let_next_kernel_start(DEPENDENT: tl.constexpr):
    """Let the next kernel's programs start where there is room; they wait for this kernel's end by themselves."""
    if DEPENDENT:
        tl.extra.cuda.gdc_launch_dependents()


@lru_cache
def launches_dependently(device: torch.device) -> bool:
    """Whether kernels on `device` are launched dependently; never where they are interpreted."""
    if device.type != "cuda" or triton.knobs.runtime.interpret:
        return False
    return torch.cuda.get_device_capability(device) >= FIRST_CAPABILITY
