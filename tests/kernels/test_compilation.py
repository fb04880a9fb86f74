"""Every GPU kernel compiles: the interpreter that other tests use without a GPU accepts more than compilers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import kernels

FOLDER = Path(__file__).parent


def run_script(name: str, cache_folder: Path) -> str:
    """Run one of this folder's scripts, which compile, and give what it prints."""
    root = Path(kernels.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "TRITON_CACHE_DIR": str(cache_folder)}
    environment.pop("TRITON_INTERPRET", None)
    outcome = subprocess.run([sys.executable, FOLDER / name], env=environment, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


@pytest.mark.slow
def test_all_kernels_compile_for_hopper(tmp_path):
    assert "_select_and_attend_kernel" in run_script("compile_for_gpu.py", tmp_path)


@pytest.mark.slow
def test_several_rows_are_summed_up_as_one_is(tmp_path):
    """Which the bits of a row depend on, and which interpreted kernels do not show."""
    attention = json.loads(run_script("compile_rows.py", tmp_path))
    assert all(of_rows["sums"] and of_rows["sums"] == attention["1"]["sums"] for of_rows in attention.values())
    # Four rows are one product with 16 queries, as a single row is; eight are two, combined by the same code.
    assert attention["4"]["counts"] == attention["1"]["counts"]
