"""Models of the scripted assistant: the present one, another that can be used, and one that cannot."""

from __future__ import annotations

import threading
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from app.errors import UserFacingError
from app.models.memory_estimate import DeviceMemory, MemoryEstimate

if TYPE_CHECKING:
    from tests.ui.scripted_assistant import ScriptedAssistant

MIB = 1 << 20
PRESENT, OTHER, BROKEN = "tiny", "/models/other.gguf", "/models/broken.gguf"
NAMES = {PRESENT: "tiny-model", OTHER: "other-model"}
LOADING_S = 0.1


class ScriptedModels:
    """Stands in for `app.models.model_picker.ModelPicker`, as far as the page asks it."""

    def __init__(self, assistant: ScriptedAssistant) -> None:
        self._assistant = assistant
        self.local = SimpleNamespace(folders=())

    def state(self) -> dict[str, Any]:
        return asdict(self._assistant.loaded) | {"demonstration_note": ""}

    def listing(self, context_tokens: int | None = None, weight_bits: int | None = None) -> dict[str, Any]:
        tokens = context_tokens or 4096
        estimate = MemoryEstimate(tokens, 270 * MIB, 90 * MIB, 60 * MIB, 420 * MIB, 800 * MIB)
        rows = [
            {
                "model": reference,
                "name": name,
                "place": "a folder",
                "path": reference,
                "reason": "",
                "file_bytes": 98 * MIB,
                "parameters": 135_000_000,
                "format": "GGUF",
                "family": "llama",
                "window_tokens": 8192,
                "default_tokens": 4096,
                "longest_tokens": 8192,
                "estimate": estimate.to_json(),
                "demonstration_note": "",
            }
            for reference, name in NAMES.items()
        ]
        broken = {
            "model": BROKEN,
            "name": "broken.gguf",
            "place": "a folder",
            "path": BROKEN,
            "reason": "It is cut off.",
        }
        return {
            "state": self.state(),
            "memory": asdict(DeviceMemory("cpu", "CPU", 8 << 30, 6 << 30, 0)),
            "models": [*rows, broken],
            "folders": [],
            "notes": [],
            "is_looking": False,
            "context_choices": [2048, 4096, 8192],
            "weight_bits": weight_bits or 16,
        }

    def switch(self, model: str) -> None:
        """Load another, which takes a moment."""
        if model not in NAMES:
            raise UserFacingError("There is no such model.")
        assistant = self._assistant

        def finish() -> None:
            assistant.loaded = replace(assistant.loaded, stage="ready", message="Ready")
            assistant.telemetry.tell_all({"type": "models"})

        assistant.loaded = replace(
            assistant.loaded, stage="loading", message="Reading the weights", model=NAMES[model], reference=model
        )
        assistant.telemetry.tell_all({"type": "models"})
        threading.Timer(LOADING_S, finish).start()
