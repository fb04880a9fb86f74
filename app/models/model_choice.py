"""Which model was chosen in the page, and which folders were named there: kept for the next start.

One small JSON file in the data folder, that a person can read and delete. What is damaged in it counts as not there,
and what cannot be written is chosen anew the next time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from app.settings import LEAST_CONTEXT_TOKENS, AppSettings
from quest_core.config import WEIGHT_BITS

FILE_NAME = "models.json"
MAX_FOLDERS = 50
MAX_PATH_CHARACTERS = 4096
_MAX_FILE_BYTES = 1 << 20


@dataclass(frozen=True)
class ModelChoice:
    """A model and how it is to be loaded.

    Args:
        model: as `--model` takes it.
        context_tokens: its window; None for the model's own.
        weight_bits: of its matrices.
    """

    model: str
    context_tokens: int | None = None
    weight_bits: int = AppSettings.weight_bits

    @classmethod
    def of_settings(cls, settings: AppSettings) -> ModelChoice:
        """What the settings ask for."""
        return cls(settings.model, settings.context_tokens, settings.weight_bits)

    def apply(self, settings: AppSettings) -> AppSettings:
        """The settings with this model in place of theirs.

        Raises:
            UserFacingError: for a window or a number of bits that no model has.
        """
        return replace(settings, model=self.model, context_tokens=self.context_tokens, weight_bits=self.weight_bits)

    def under_flags(self, settings: AppSettings) -> ModelChoice:
        """This model, where it was chosen in an earlier run, with what the flags of this one ask for."""
        bits = settings.weight_bits if settings.weight_bits != AppSettings.weight_bits else self.weight_bits
        return ModelChoice(self.model, settings.context_tokens or self.context_tokens, bits)

    @classmethod
    def from_json(cls, values: Any) -> ModelChoice | None:
        """What `asdict` made of one; None if it is none."""
        if not isinstance(values, dict):
            return None
        model, tokens, bits = (values.get(name) for name in ("model", "context_tokens", "weight_bits"))
        if not isinstance(model, str) or not 0 < len(model) <= MAX_PATH_CHARACTERS:
            return None
        if tokens is not None and (type(tokens) is not int or tokens < LEAST_CONTEXT_TOKENS):
            return None
        return cls(model, tokens, bits) if bits in WEIGHT_BITS and type(bits) is int else None


@dataclass(frozen=True)
class ModelChoices:
    """What is kept.

    Args:
        chosen: None where nobody has chosen.
        folders: that were named, the one named last first.
    """

    chosen: ModelChoice | None = None
    folders: tuple[str, ...] = field(default_factory=tuple)

    @classmethod
    def read(cls, data_dir: Path) -> ModelChoices:
        """What is kept in a data folder."""
        values: Any = None
        with suppress(OSError, ValueError, RecursionError):
            path = data_dir / FILE_NAME
            if path.is_file() and path.stat().st_size <= _MAX_FILE_BYTES:
                values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            return cls()
        folders = values.get("folders")
        folders = [one for one in folders if _is_path(one)] if isinstance(folders, list) else []
        return cls(ModelChoice.from_json(values.get("chosen")), tuple(folders[:MAX_FOLDERS]))

    def write(self, data_dir: Path) -> None:
        """Keep it; what cannot be written is not."""
        values: Mapping[str, Any] = {
            "chosen": None if self.chosen is None else asdict(self.chosen),
            "folders": list(self.folders),
        }
        written = data_dir / f"{FILE_NAME}.{os.getpid()}.tmp"
        with suppress(OSError):
            written.write_text(json.dumps(values, indent=1, ensure_ascii=False), encoding="utf-8")
            written.replace(data_dir / FILE_NAME)


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_PATH_CHARACTERS and "\0" not in value
