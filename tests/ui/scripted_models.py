"""Scripted models for the page: a present one, a larger one that can be loaded, one that fails, and others.

What `app.models.model_picker.ModelPicker` promises, as far as the page can see.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

from app.errors import UserFacingError
from app.models.model_loader import ModelStatus
from app.models.model_switch import AnswersRunning

GIB = 1 << 30
NAMES = ("tiny-model", "Larger <b>4B</b>", "Broken-7B", "Huge-70B")


class ScriptedModels:
    """Stands in for `ModelPicker`.

    Args:
        status: the model's state as it is now.
        tell: takes the state as it becomes.
        is_answering: whether an answer is being made.

    Attributes:
        go_on: cleared, a model that is chosen is loading until it is set.
        switched: what was chosen, with its window and bits.
    """

    def __init__(
        self,
        status: Callable[[], ModelStatus],
        tell: Callable[[ModelStatus], None],
        is_answering: Callable[[], bool],
    ) -> None:
        self._status = status
        self._tell = tell
        self._is_answering = is_answering
        self.go_on = threading.Event()
        self.go_on.set()
        self.switched: list[tuple[str, int | None, int | None]] = []
        self.local = SimpleNamespace(folders=())

    def state(self) -> dict[str, Any]:
        status = self._status()
        return asdict(replace(status, reference=status.reference or status.model)) | {"demonstration_note": ""}

    def listing(self, context_tokens: int | None = None, weight_bits: int | None = None) -> dict[str, Any]:
        models = [_row(name, (index + 1) * GIB, context_tokens) for index, name in enumerate(NAMES)]
        models[-1]["estimate"] |= {
            "fit": "no", "reason": "It needs about 40.0 GiB, and this computer has 8.0 GiB free for it.",
            "total_bytes": 40 * GIB, "fitting_tokens": 2048,
        }  # fmt: skip
        models.append(
            {"model": "/models/gpt2", "name": "gpt2", "path": "/models/gpt2", "place": "Your folder",
             "reason": "Model family 'gpt2' is not supported."}
        )  # fmt: skip
        return {
            "state": self.state(),
            "memory": {"device": "cpu", "name": "this computer", "total_bytes": 16 * GIB, "free_bytes": 7 * GIB,
                       "held_bytes": GIB},
            "models": models,
            "folders": list(self.local.folders),
            "notes": [],
            "is_looking": False,
            "context_choices": [2048, 4096, 8192],
            "weight_bits": weight_bits or 16,
        }  # fmt: skip

    def add_folder(self, path: str) -> None:
        if not path.startswith("/models"):
            raise UserFacingError(f"There is no folder and no .gguf file {path} on this machine. Check the path.")
        self.local.folders = (path, *self.local.folders)

    def remove_folder(self, path: str) -> None:
        self.local.folders = tuple(one for one in self.local.folders if one != path)

    def switch(self, model: str, context_tokens: int | None, weight_bits: int | None, stop: bool) -> None:
        if self._is_answering() and not stop:
            raise AnswersRunning("An answer is being made with the present model.")
        self.switched.append((model, context_tokens, weight_bits))
        former = self._status()
        self._tell(ModelStatus("loading", "Reading the weights", model, reference=model))
        threading.Thread(target=self._load, args=(model, former), daemon=True).start()

    def _load(self, model: str, former: ModelStatus) -> None:
        self.go_on.wait(60)
        if model.startswith("Broken"):
            notice = f"{model} could not be loaded: its weights are damaged. {former.model} is still here."
            self._tell(replace(former, notice=notice))
        else:
            self._tell(ModelStatus("ready", f"{model} is ready", model, "CPU", 8192, reference=model))


def _row(name: str, total_bytes: int, context_tokens: int | None) -> dict[str, Any]:
    parts = {"weights_bytes": total_bytes // 2, "cache_bytes": total_bytes // 4, "work_bytes": total_bytes // 4}
    return {
        "model": name,
        "name": name,
        "place": "Your folder",
        "path": f"/models/{name}",
        "reason": "",
        "file_bytes": total_bytes // 2,
        "parameters": total_bytes // 4,
        "format": "BF16",
        "family": "llama",
        "window_tokens": 8192,
        "default_tokens": 8192,
        "longest_tokens": 8192,
        "estimate": parts
        | {"context_tokens": min(context_tokens or 8192, 8192), "total_bytes": total_bytes, "pool_bytes": total_bytes,
           "fit": "beside", "reason": "", "fitting_tokens": 0},
        "demonstration_note": "",
    }  # fmt: skip
