"""The one direction of imports, the style, and that every module says what it is for."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LAYERS = ["ui", "app", "quest_core", "kernels"]
PAGE_LIBRARIES = {"gradio", "fastapi", "uvicorn", "starlette", "llama_index", "pypdf"}
FORBIDDEN = {
    "ui": {"torch", "triton"},
    "app": set(),
    "quest_core": PAGE_LIBRARIES,
    "kernels": PAGE_LIBRARIES | {"transformers", "accelerate"},
}
MODULES = [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]


def imported_packages(path: Path) -> set[str]:
    """Top-level names of everything a file imports, at any depth of nesting."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.add(node.module.partition(".")[0])
    return names


def test_imports_go_one_way():
    wrong = {}
    for path in MODULES:
        layer = path.relative_to(ROOT).parts[0]
        forbidden = FORBIDDEN[layer].union(LAYERS[: LAYERS.index(layer)])
        if found := imported_packages(path) & forbidden:
            wrong[str(path.relative_to(ROOT))] = found
    assert not wrong


def test_the_launcher_needs_the_standard_library_only():
    assert imported_packages(ROOT / "launch.py") <= set(sys.stdlib_module_names)


def test_every_module_has_a_docstring():
    paths = [*MODULES, ROOT / "launch.py", *sorted((ROOT / "tests").rglob("*.py"))]
    assert [str(path) for path in paths if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))] == []


def test_ruff_finds_nothing():
    result = subprocess.run([sys.executable, "-m", "ruff", "check", str(ROOT)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
