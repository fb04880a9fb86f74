"""Keeps Gradio from writing type stubs when it is imported.

Each of its components, as its class is made, reads its own source and compares it with a .pyi file beside it, for
editors; that is most of the time that importing Gradio takes, and there is no setting for it.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_MODULE, _FUNCTION = "gradio.component_meta", "create_or_modify_pyi"


class _WithoutStubs:
    """A finder for that one module; all others are found as ever."""

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != _MODULE:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def run_and_replace(module: ModuleType) -> None:
            run(module)
            # Another version of Gradio may have no such function, and then nothing is to be replaced.
            if hasattr(module, _FUNCTION):
                setattr(module, _FUNCTION, lambda *arguments, **options: None)

        spec.loader.exec_module = run_and_replace
        return spec


def skip_gradio_stubs() -> None:
    """Call before Gradio is imported; does nothing afterwards, or again."""
    if "gradio" not in sys.modules and not any(isinstance(finder, _WithoutStubs) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WithoutStubs())
