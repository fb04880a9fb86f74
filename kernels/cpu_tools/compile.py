"""How this package compiles its loops with Numba.

Compiled code is cached beside the sources (or in NUMBA_CACHE_DIR), so only the first run waits. Two habits keep that
wait short. A function that calls much and has few callers is `inlined`. One array is copied to another in a loop: to
raise the error of `a[:] = b` for unequal shapes, Numba compiles Python's strings, a quarter of what a step took.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from numba import njit

from kernels.cpu_tools.shared_cache import share_cache

_KERNELS = Path(__file__).parents[1]
_SOURCES = [path.stat() for path in _KERNELS.rglob("*.py") if "gpu" not in str(path.relative_to(_KERNELS))]
_STAMP = max(source.st_mtime for source in _SOURCES), sum(source.st_size for source in _SOURCES)


def compiled(function: Callable, **options: Any) -> Callable:
    """Compile `function` when it is first called, or take it from the disk.

    Without fast math: the compiler would add up in an order of its own, another on each processor, and a slower one
    than that of `emitted`.
    """
    dispatcher = njit(cache=True, nogil=True, no_cfunc_wrapper=True, **options)(function)
    # Numba looks at the function's own file alone; what it calls from another would be taken stale after an update.
    dispatcher._cache._cache_file._source_stamp = _STAMP
    share_cache(dispatcher)
    return dispatcher


# Products and sums may be fused: for long polynomials.
compiled_fused = partial(compiled, fastmath={"contract"})
# Becomes part of its caller: what a function calls is optimised and translated anew with it, at each level of calls.
inlined = partial(compiled, inline="always")
