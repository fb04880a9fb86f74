"""Nobody pays for llama-index's engines who does not use them."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_no_other_room_imports_this_one():
    importing = set()
    for folder in ("app", "ui", "quest_core", "kernels"):
        for path in (ROOT / folder).rglob("*.py"):
            nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
            names = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
            names |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
            if any(name and name.startswith("app.llama_index") for name in names):
                importing.add(path.parent.relative_to(ROOT).as_posix())
    assert importing == {"app/llama_index"}
