"""The models that can be chosen in the page, and the choosing: what is here, what each would take, which one answers.

Brings together what finds models, reckons their memory, changes them and remembers the choice. What is told is ready
for JSON; who asks for it, `app.web.model_routes` knows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from app.errors import UserFacingError
from app.models.device_memory import DeviceMemory, device_memory
from app.models.local_models import LocalModel, LocalModels
from app.models.memory_estimate import MemoryEstimate, estimate_memory
from app.models.model_choice import ModelChoice, ModelChoices
from app.models.model_loader import DEMONSTRATION_NOTE, ModelLoader
from app.models.model_places import Place
from app.models.model_switch import Handover, ModelSwitch, resident_bytes
from app.settings import AppSettings
from quest_core.errors import ModelError
from quest_core.model.model_source import DEFAULT_CONTEXT_TOKENS

# Offered for every model that can read as much: whole documents of 3, 6, 12 pages and so on.
CONTEXT_CHOICES = (2048, 4096, 8192, 16384, 32768, 65536, 131072)

# A model that is not in the list is looked for so long.
_LOOK_S = 20.0


class ModelPicker:
    """Tells of the models on this machine, and changes the one that answers.

    Args:
        settings: of the program; a choice takes the place of their model, window and weight bits.
        data_dir: where the choice and named folders are kept.
        keeps: whether anything may be written there.
        loader: of the model.
        handover: of the conversations.
        on_change: told when something that the page shows has changed.
        places: where models are looked for; None for this machine's.
    """

    def __init__(
        self,
        settings: AppSettings,
        data_dir: Path,
        keeps: bool,
        loader: ModelLoader,
        handover: Handover,
        on_change: Callable[[], None],
        places: list[Place] | None = None,
    ) -> None:
        self._settings = settings
        self._data_dir = data_dir
        self._keeps = keeps
        self._loader = loader
        self._choices = ModelChoices.read(data_dir)
        self.local = LocalModels(data_dir, self._choices.folders, on_change, places)
        self._switch = ModelSwitch(settings, loader, handover, self._remember)

    def switch(
        self, model: str, context_tokens: int | None = None, weight_bits: int | None = None, stop_answers: bool = False
    ) -> None:
        """Begin to load another model of this machine; see `ModelSwitch.start`.

        Args:
            model: its reference, as listed.
            context_tokens: its window; None for its own.
            weight_bits: of its matrices; None for those of the settings.
            stop_answers: stop what is being answered.

        Raises:
            UserFacingError: no such model, or it cannot be loaded; `AnswersRunning`.
        """
        if self._settings.engine_url:
            raise UserFacingError(
                f"{self._loader.status.engine_url or self._settings.engine_url} answers here. Start Quest Chat without "
                "--engine-url to choose a model of this machine."
            )
        choice = ModelChoice(model, context_tokens, weight_bits or self._settings.weight_bits)
        # Refused here, before anything is stopped for it.
        self._switch.settings_for(choice)
        self._switch.start(self._find(model), choice, stop_answers)

    def _find(self, model: str) -> LocalModel:
        try:
            return self.local.find(model)
        except UserFacingError:
            # It may have been downloaded, or mended, a moment ago.
            self.local.look(now=True)
            self.local.wait(_LOOK_S)
            return self.local.find(model)

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait for the end of a change that is under way."""
        self._switch.wait(timeout_s)

    def add_folder(self, path: str) -> None:
        """Look for models in a folder, now and in later runs.

        Raises:
            UserFacingError: there is none.
        """
        self.local.add_folder(path)
        self._keep_folders()

    def remove_folder(self, path: str) -> None:
        """Look for models in a folder no longer."""
        self.local.remove_folder(path)
        self._keep_folders()

    def close(self) -> None:
        """Look for no more models."""
        self.local.close()

    def state(self) -> dict[str, Any]:
        """The model that answers, or how far another is."""
        status = self._loader.status
        return asdict(status) | {"demonstration_note": DEMONSTRATION_NOTE if status.demonstration else ""}

    def listing(self, context_tokens: int | None = None, weight_bits: int | None = None) -> dict[str, Any]:
        """What there is to choose from; looks for it in a thread, and tells what is known so far.

        Args:
            context_tokens: the window that memory is reckoned for; of a model that cannot read as much, the longest
                that it can. None for each model's own.
            weight_bits: of the matrices; None for those of the settings.

        Returns:
            state: see above,
            memory: the fields of `DeviceMemory`; None before anything is known,
            models: see `_row`,
            folders: those that were named,
            notes: sentences on what was not looked at,
            is_looking: whether more may come,
            context_choices, weight_bits: what can be chosen.
        """
        self.local.look()
        models = self.local.models()
        # Asks torch, which takes seconds to import: the thread that looks has done it by then.
        memory = self._memory() if models else None
        bits = weight_bits or self._settings.weight_bits
        return {
            "state": self.state(),
            "memory": None if memory is None else asdict(memory),
            "models": [self._row(model, context_tokens, bits, memory) for model in models],
            "folders": list(self.local.folders),
            "notes": self.local.notes(),
            "is_looking": self.local.is_looking,
            "context_choices": list(CONTEXT_CHOICES),
            "weight_bits": bits,
        }

    def _memory(self) -> DeviceMemory:
        present = self._loader.model
        return device_memory(self._settings.device, 0 if present is None else resident_bytes(present))

    def _row(
        self, model: LocalModel, context_tokens: int | None, weight_bits: int, memory: DeviceMemory
    ) -> dict[str, Any]:
        """A model as it is listed.

        Returns:
            model: its reference; name, place and path for people,
            reason: why it cannot be used; "" if it can. Then also
            file_bytes, parameters, format, family, and window_tokens: what it reads by itself,
            longest_tokens: the longest window that it can be given,
            default_tokens: the window that it gets unless another is asked for,
            estimate: the fields of `MemoryEstimate`,
            demonstration_note: what not to expect of it; "" otherwise.
        """
        candidate, outline = model.candidate, model.outline
        row = {
            "model": candidate.reference,
            "name": candidate.name,
            "place": candidate.place,
            "path": str(candidate.path),
            "reason": model.reason,
        }
        if outline is None:
            return row
        default = DEFAULT_CONTEXT_TOKENS.get(candidate.reference, outline.config.context_tokens)
        longest = max(default, outline.config.context_tokens)
        tokens = min(context_tokens, longest) if context_tokens else default
        is_embedded = candidate.reference == AppSettings.model
        return row | {
            "file_bytes": outline.file_bytes,
            "parameters": outline.parameters,
            "format": outline.format,
            "family": outline.config.family,
            "window_tokens": outline.config.context_tokens,
            "default_tokens": default,
            "longest_tokens": longest,
            "estimate": self._estimate(model, tokens, weight_bits, memory).to_json(),
            "demonstration_note": DEMONSTRATION_NOTE if is_embedded else "",
        }

    def _estimate(self, model: LocalModel, tokens: int, weight_bits: int, memory: DeviceMemory) -> MemoryEstimate:
        settings = ModelChoice(model.reference, tokens, weight_bits).apply(self._settings)
        try:
            return estimate_memory(model.outline, settings, tokens, memory)
        except ModelError as error:
            return MemoryEstimate(tokens, 0, 0, 0, 0, 0, "no", str(error))

    def _remember(self, choice: ModelChoice) -> None:
        self._choices = replace(self._choices, chosen=choice)
        self._write()

    def _keep_folders(self) -> None:
        self._choices = replace(self._choices, folders=self.local.folders)
        self._write()

    def _write(self) -> None:
        if self._keeps:
            self._choices.write(self._data_dir)


def remembered_settings(settings: AppSettings) -> AppSettings | None:
    """The settings with the model that was chosen in an earlier run; None if none was."""
    chosen = ModelChoices.read(settings.data_dir).chosen
    if chosen is None:
        return None
    try:
        return chosen.under_flags(settings).apply(settings)
    except UserFacingError:
        return None
