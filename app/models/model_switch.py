"""Changing the model while the page is open: one change at a time, in a thread.

Where both fit into the memory the other is loaded beside the present one, which stays if that fails; else the present
one is let go first, and loaded again if the other cannot be. Nobody begins anything meanwhile: whoever asks waits.
"""

from __future__ import annotations

import gc
import logging
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from app.errors import UserFacingError
from app.models.device_memory import device_memory
from app.models.local_models import LocalModel
from app.models.memory_estimate import MemoryEstimate, estimate_memory
from app.models.model_choice import ModelChoice
from app.models.model_loader import LoadedModel, ModelLoader, ModelStatus
from app.settings import AppSettings
from quest_core.errors import ModelError
from quest_core.model.model_source import DEFAULT_CONTEXT_TOKENS

_log = logging.getLogger(__name__)


class Handover(Protocol):
    """Who uses a model, and what becomes of them; see `app.chat.model_handover.ModelHandover`."""

    def users(self, model: LoadedModel) -> Sequence[Any]: ...

    def stop(self, model: LoadedModel) -> bool: ...

    def pause(self) -> None: ...

    def go_on(self) -> None: ...

    def begin_anew(self) -> None: ...


class AnswersRunning(UserFacingError):
    """The model is in use, and nobody has said that it may be stopped."""


class ModelSwitch:
    """Changes the model.

    Args:
        settings: what the program was started with; a choice takes the place of their model alone.
        loader: has the model.
        handover: knows who uses it.
        on_chosen: told, once it is loaded, of what is to be remembered.
    """

    def __init__(
        self,
        settings: AppSettings,
        loader: ModelLoader,
        handover: Handover,
        on_chosen: Callable[[ModelChoice], None],
    ) -> None:
        self._settings = settings
        self._loader = loader
        self._handover = handover
        self._on_chosen = on_chosen
        self._thread: threading.Thread | None = None

    def estimate(self, model: LocalModel, choice: ModelChoice) -> MemoryEstimate:
        """What a model would take, and whether it would fit.

        Raises:
            ModelError: a window that it cannot read, or no such device.
        """
        return self._estimate(model, choice, self._loader.model)

    def _estimate(self, model: LocalModel, choice: ModelChoice, present: LoadedModel | None) -> MemoryEstimate:
        settings = self.settings_for(choice)
        memory = device_memory(settings.device, 0 if present is None else resident_bytes(present))
        tokens = choice.context_tokens or DEFAULT_CONTEXT_TOKENS.get(choice.model)
        return estimate_memory(model.outline, settings, tokens, memory)

    def settings_for(self, choice: ModelChoice) -> AppSettings:
        """What a choice is loaded with."""
        return choice.apply(self._settings)

    def start(self, model: LocalModel, choice: ModelChoice, stop_answers: bool) -> None:
        """Begin to change to a model.

        Args:
            model: which, with an outline.
            choice: how it is to be loaded.
            stop_answers: stop what is being answered; its words so far stay.

        Raises:
            UserFacingError: it does not fit, another is being loaded, or the program ends; `AnswersRunning` if it has
                not been said that answers may be stopped.
        """
        try:
            estimate = self.estimate(model, choice)
        except ModelError as error:
            raise UserFacingError(str(error)) from error
        if estimate.fit == "no":
            shorter = f" A window of {estimate.fitting_tokens:,} tokens would fit." if estimate.fitting_tokens else ""
            raise UserFacingError(f"{model.candidate.name} does not fit. {estimate.reason}{shorter}")
        former = self._loader.begin_change(self.settings_for(choice), model.candidate.name)
        try:
            users = [] if former is None else self._handover.users(former)
            if users and not stop_answers:
                what = "An answer is" if len(users) == 1 else f"{len(users)} answers are"
                raise AnswersRunning(
                    f"{what} being made with the present model. Stop and change the model, or wait for the end."
                )
            self._thread = threading.Thread(target=self._run, args=(model, choice), name="model-switch", daemon=True)
            self._thread.start()
        except BaseException:
            self._back()
            raise

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait for the end of the change that is under way, if one is."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self, model: LocalModel, choice: ModelChoice) -> None:
        name = model.candidate.name
        try:
            if not self._are_stopped():
                self._back(f"{name} was not loaded: an answer could not be stopped. Try again.")
                return
            self._handover.pause()
            if self._fits_beside(model, choice):
                self._load_beside(name, choice)
            else:
                self._load_instead(name, choice)
        except Exception as error:  # a thread has nobody else to tell
            _log.error("the model could not be changed", exc_info=error)
            self._loader.fail(f"{name} could not be loaded: {_reason(error)} Choose another model.")

    # None of these keeps the former model: its memory would not come free.

    def _are_stopped(self) -> bool:
        former = self._loader.former
        if former is None or not self._handover.users(former):
            return True
        self._loader.report("Stopping the answer")
        return self._handover.stop(former)

    def _fits_beside(self, model: LocalModel, choice: ModelChoice) -> bool:
        former = self._loader.former
        return former is None or self._estimate(model, choice, former).fit == "beside"

    def _load_beside(self, name: str, choice: ModelChoice) -> None:
        loaded, why = self._load(name, self.settings_for(choice))
        if loaded is None:
            self._back(why)
            return
        self._loader.let_go()
        self._handover.begin_anew()
        self._finish(loaded, choice)

    def _load_instead(self, name: str, choice: ModelChoice) -> None:
        former_name = self._loader.former_name
        self._loader.report(f"Letting {former_name} go first: there is no room for both")
        former_settings = self._loader.let_go()
        self._handover.begin_anew()
        free_unused_memory()
        loaded, why = self._load(name, self.settings_for(choice))
        if loaded is not None:
            self._finish(loaded, choice)
            return
        free_unused_memory()
        if former_settings is None:
            self._loader.fail(f"{why} Choose another model.")
            return
        self._loader.report(f"{why} Loading {former_name} again")
        loaded, why_not_back = self._load(former_name, former_settings)
        if loaded is None:
            self._loader.fail(f"{why} {why_not_back}")
            return
        self._loader.finish_change(*loaded, former_settings, f"{why} {former_name} is back.")

    def _load(self, name: str, settings: AppSettings) -> tuple[tuple[LoadedModel, ModelStatus] | None, str]:
        """A loaded model, or None and why not; in frames of its own, which go with all that an attempt has taken."""
        try:
            # What is on this machine is loaded from it: a choice in a list asks nobody for a newer version.
            return self._loader.load(settings, offline=True), ""
        except Exception as error:  # torch raises many kinds where memory does not suffice
            if not isinstance(error, UserFacingError):
                _log.error("a model could not be loaded", exc_info=error)
            return None, f"{name} could not be loaded: {_reason(error)}"

    def _finish(self, loaded: tuple[LoadedModel, ModelStatus], choice: ModelChoice) -> None:
        if self._loader.finish_change(*loaded, self.settings_for(choice)):
            free_unused_memory()
            self._on_chosen(choice)

    def _back(self, why: str = "") -> None:
        """Go on with the former model, if there was one."""
        if why and self._loader.former is not None:
            why = f"{why} {self._loader.former_name} is still here."
        if self._loader.undo_change(why):
            self._handover.go_on()


def resident_bytes(model: LoadedModel) -> int:
    """What comes free when a model goes: of its pool, on a CPU, only what was ever filled is taken."""
    if model.is_remote:
        return 0
    memory = model.engine.memory()
    pages = memory["pool_pages"]
    if model.engine.device.type == "cpu":
        pages -= memory["free_pages"]
    return memory["weight_bytes"] + pages * memory["page_bytes"]


def free_unused_memory() -> None:
    """Give back what models have held that are gone."""
    gc.collect()
    # Whoever has loaded a model has imported it.
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _reason(error: Exception) -> str:
    """Why, as a sentence."""
    text = str(error).strip()
    if not isinstance(error, UserFacingError):
        first = (text.splitlines() or [""])[0]
        text = f"{type(error).__name__}{f': {first}' if first else ''}"
        if "out of memory" in first.lower() or isinstance(error, MemoryError):
            text = "its memory did not suffice"
    return text if text.endswith((".", "!", "?")) else f"{text}."
