"""Which implementations of the operators are tested, and on which cases.

There are three: the CPU's, compiled by Numba; the GPU's, compiled by Triton; and the GPU's, interpreted by Triton where
there is no GPU, which is slow. On a GPU a test has the whole product of its parameters, elsewhere chosen rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import torch

HAS_GPU = torch.cuda.is_available()  # without one, tests/conftest.py has Triton interpret its kernels

# What their caches may hold.
DTYPES = {
    "cpu": (torch.float32, torch.float16, torch.bfloat16),
    # Its tl.dot multiplies the bit patterns of bfloat16 (seen in triton 3.7.1).
    "interpreter": (torch.float16, torch.float32),
    "cuda": (torch.float16, torch.bfloat16, torch.float32),
}
GPU_KERNELS = ["cuda"] if HAS_GPU else ["interpreter"]
IMPLEMENTATIONS = ["cpu", *GPU_KERNELS]


def _parameter(implementation: str, values: Sequence[Any] = ()) -> Any:
    marks = pytest.mark.gpu if implementation == "cuda" else ()
    return pytest.param(implementation, *values, marks=marks, id="-".join(map(str, (implementation, *values))))


ALL_PARAMETERS = [_parameter(implementation) for implementation in IMPLEMENTATIONS]
of_gpu_kernels = pytest.mark.parametrize("ops", [_parameter(name) for name in GPU_KERNELS], indirect=True)


def cases(
    names: str,
    chosen: Sequence[Sequence[Any]],
    *,
    full: Iterable[Sequence[Any]],
    compiled: Sequence[Sequence[Any]] = (),
    implementations: Sequence[str] = IMPLEMENTATIONS,
    cpu_dtypes: Sequence[torch.dtype] = DTYPES["cpu"],
) -> pytest.MarkDecorator:
    """Parametrise a test that takes `ops`.

    Args:
        names: of the parameters, separated by blanks. A last one `dtype` may be left out in rows: they take those of
            the implementation in turn.
        chosen: rows that run where there is no GPU.
        full: rows that run on a GPU, as a rule a product.
        compiled: more rows for the CPU, which the interpreter would take long for.
        implementations: those that are tested.
        cpu_dtypes: of the CPU.
    """
    columns, parameters, full = names.split(), [], list(full)
    least = len(columns) - (columns[-1] == "dtype")
    # Also where there is no GPU to run them on.
    misfits = [row for row in (*chosen, *compiled, *full) if not least <= len(row) <= len(columns)]
    assert not misfits, f"not {columns}: {misfits[0]}"
    for implementation in IMPLEMENTATIONS:
        if implementation not in implementations:
            continue
        dtypes = cpu_dtypes if implementation == "cpu" else DTYPES[implementation]
        rows = {"cpu": [*chosen, *compiled], "interpreter": chosen, "cuda": full}[implementation]
        for index, row in enumerate(rows):
            if len(row) < len(columns):
                row = (*row, dtypes[index % len(dtypes)])
            if columns[-1] != "dtype" or row[-1] in dtypes:
                parameters.append(_parameter(implementation, row))
    return pytest.mark.parametrize(["ops", *columns], parameters, indirect=["ops"])


def product(*axes: Iterable[Any]) -> list[tuple[Any, ...]]:
    """All combinations; an axis may be of tuples, which are spread over several parameters."""
    rows = itertools.product(*axes)
    return [tuple(itertools.chain.from_iterable(v if isinstance(v, tuple) else (v,) for v in row)) for row in rows]
