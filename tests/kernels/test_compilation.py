"""Every GPU kernel compiles: the interpreter that other tests use without a GPU accepts more than compilers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import kernels

SCRIPT = Path(__file__).with_name("compile_for_gpu.py")


@pytest.mark.slow
def test_all_kernels_compile_for_hopper(tmp_path):
    root = Path(kernels.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    outcome = subprocess.run([sys.executable, SCRIPT], env=environment, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    assert "_select_and_attend_kernel" in outcome.stdout
