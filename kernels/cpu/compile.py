"""How this package compiles its loops with Numba.

Compiled code is cached beside the sources (or in NUMBA_CACHE_DIR), so only the first run waits. Loops run on the
calling thread: two pools that spin on the same cores, torch's and Numba's, slow each other down far more than a second
thread would gain.
"""

from __future__ import annotations

from functools import partial

import torch
from numba import njit

# Sums may be reordered and fused so that they vectorise; infinities and NaN keep their meaning (padding, bad pages).
compiled = partial(njit, cache=True, nogil=True, fastmath={"reassoc", "contract", "arcp", "nsz"})


def require_float32(**tensors: torch.Tensor) -> None:
    """Raises ValueError naming the first tensor that is not a float32 CPU tensor with a contiguous last dimension."""
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu" or tensor.stride(-1) != 1:
            raise ValueError(
                f"{name} must be float32 on the CPU with a contiguous last dimension, got {tensor.dtype} on "
                f"{tensor.device} with strides {tensor.stride()}"
            )
