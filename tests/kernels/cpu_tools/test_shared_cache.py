"""Processes that need the same compiled code at the same time: one compiles it, and nobody gets another's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
MODULE = '''
"""A function that takes a while to compile and tells what it was compiled for."""

from kernels.cpu_tools.compile import compiled


@compiled
def total(values):
    result = values[0] * 0
    for i in range(len(values)):
        result += values[i] * values[i] / 2
    return result
'''
# Starts when told to, so that all of them do at once.
PROGRAM = """
import json, sys
import numpy as np
from slow_function import total
print("ready", flush=True)
order = sys.stdin.readline().split()
found = [float(total(np.full(3, 2.5).astype(dtype))) for dtype in order]
statistics = total.stats
print(json.dumps([sum(statistics.cache_misses.values()), sum(statistics.cache_hits.values()), found]))
"""


def test_processes_side_by_side_compile_a_version_once(tmp_path):
    (tmp_path / "slow_function.py").write_text(MODULE)
    environment = os.environ | {
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
    }
    processes = [
        subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=-1, stdout=-1, env=environment, text=True)
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    orders = (["float32", "int32", "int16"], ["int16", "int32", "float32"])
    for process, order in zip(processes, orders, strict=True):
        process.stdin.write(" ".join(order) + "\n")
        process.stdin.flush()
    results = [json.loads(process.communicate(timeout=300)[0]) for process in processes]
    totals = {"float32": 9.375, "int32": 6.0, "int16": 6.0}
    assert [found for _, _, found in results] == [[totals[dtype] for dtype in order] for order in orders]
    assert sum(misses for misses, _, _ in results) == 3
    assert sum(hits for _, hits, _ in results) == 3


def test_code_is_compiled_anew_after_a_change_of_any_other_file_that_it_may_call(tmp_path):
    kernels = tmp_path / "kernels"
    shutil.copytree(ROOT / "kernels" / "cpu_tools", kernels / "cpu_tools", ignore=shutil.ignore_patterns("__pycache__"))
    (kernels / "step").mkdir()
    callee = kernels / "step" / "cpu.py"
    callee.touch()
    (tmp_path / "slow_function.py").write_text(MODULE)
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path)}

    def count_compilations() -> int:
        command = [sys.executable, "-c", PROGRAM]
        result = subprocess.run(
            command, cwd=tmp_path, env=environment, input="int32\n", stdout=-1, text=True, check=True
        )
        return json.loads(result.stdout.splitlines()[-1])[0]

    assert [count_compilations(), count_compilations()] == [1, 0]
    callee.write_text("CHANGED = True\n")
    assert count_compilations() == 1
