"""The model: loaded once, in a thread, while the page is already open.

Tells how far it is and lets others wait for it. Knows nothing of conversations.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from app.chat.answer_run import Thinking
from app.chat.prompt.plan import PromptPlanner
from app.chat.prompt.template import ChatTokenizer
from app.chat.stretch_notes import stretch_warning, window_note
from app.chat.summary_level_notes import idle_levels_note, levels_scope_note
from app.chat.thought_stream import thinking_limit
from app.errors import UserFacingError, explain_import
from app.settings import AppSettings
from quest_core.config import EngineConfig

if TYPE_CHECKING:
    from quest_core.engine import Engine


# The embedded model answers 2 of 16 plain questions about the sample book. Whoever meets it must know.
DEMONSTRATION_NOTE = "A demonstration model, often wrong. For a larger one:"
LARGER_MODEL = "--model Qwen/Qwen3-4B"


@dataclass(frozen=True)
class ModelStatus:
    """How far loading has come; device and window (in tokens) are known once it is "ready".

    `note` says how a conversation is read that outgrows what the model was trained for, `warning` what that costs; both
    name a setting that does nothing here, and are empty where there is nothing to say. `demonstration` is true of the
    embedded model.
    """

    stage: Literal["starting", "loading", "ready", "failed"]
    message: str
    model: str
    device: str = ""
    context_tokens: int = 0
    note: str = ""
    warning: str = ""
    demonstration: bool = False


@dataclass(frozen=True)
class LoadedModel:
    """The engine and what turns text into its tokens."""

    engine: Engine
    tokenizer: ChatTokenizer
    planner: PromptPlanner

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer, by the tokenizer's or the model's account."""
        return tuple(sorted({*self.tokenizer.stop_token_ids, *self.engine.model_config.eos_token_ids}))

    @property
    def thinking(self) -> Thinking:
        """How the model may think before it answers."""
        tokenizer, limit = self.tokenizer, thinking_limit(self.engine.context_tokens)
        return Thinking(tokenizer.opens_thought, limit, tokenizer.end_of_thought)


class ModelLoader:
    """Loads the model that the settings name.

    Args:
        settings: which model.
        config: what the engine is loaded with.
        on_ready: called when it is there, in the thread that has loaded it.

    Attributes:
        status: how far it is.
        model: None until it is ready.
    """

    def __init__(
        self,
        settings: AppSettings,
        config: EngineConfig | None = None,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._config = config or settings.engine_config()
        self._on_ready = on_ready
        self._demonstration = settings.model == AppSettings.model
        self.status = ModelStatus(
            "starting", "The model is not loaded yet.", settings.model, demonstration=self._demonstration
        )
        self.model: LoadedModel | None = None
        self._settings = settings
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def start(self) -> None:
        """Begin to load; further calls do nothing."""
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._load, name="model-loader", daemon=True)
                self._thread.start()

    def wait(self) -> LoadedModel:
        """Wait for the model, loading it if nobody has begun to.

        Raises:
            UserFacingError: if it cannot be loaded.
        """
        if self.model is None:
            self.start()
            if self._thread is not None:
                self._thread.join()
        if self.model is None:
            raise UserFacingError(self.status.message if self.status.stage == "failed" else "Quest Chat is closing.")
        return self.model

    def close(self) -> None:
        """Let the model go, now or as soon as it is loaded."""
        with self._lock:
            self._closed = True
            model = self.model
        if model is not None:
            model.engine.close()

    def _load(self) -> None:
        settings = self._settings
        self._report("loading", "Starting")
        try:
            # Imported here, so that the page opens before torch is loaded.
            from quest_core.engine import Engine

            engine = Engine.load(settings.model, self._config, lambda message: self._report("loading", message))
            tokenizer = ChatTokenizer(engine.model_folder)
        except (UserFacingError, ValueError, OSError) as error:
            self._report("failed", str(error))
            return
        except ImportError as error:
            about_package = explain_import(error)
            self._report("failed", str(about_package or error))
            if about_package is None:
                raise
            return
        except Exception as error:  # whoever waits must hear of it, whatever it is
            self._report("failed", f"The model could not be loaded: {type(error).__name__}: {error}")
            raise
        name, device, window = engine.model_name, engine.device_name, engine.context_tokens
        device_type = engine.device.type
        idle_note = idle_levels_note(settings, device_type, (settings.token_budget,), window)
        levels_note = levels_scope_note(settings, device_type, window)
        note = f"{window_note(engine.trained_tokens, window, engine.stretch_factor)} {levels_note}".strip()
        warning = f"{stretch_warning(engine.stretch_factor)} {idle_note}".strip()
        with self._lock:
            if not self._closed:
                self.model = LoadedModel(engine, tokenizer, PromptPlanner(tokenizer, window, engine.trained_tokens))
                self.status = ModelStatus(
                    "ready", f"{name} is ready on {device}.", name, device, window, note, warning, self._demonstration
                )
        if self.model is None:
            engine.close()
        else:
            self._on_ready()

    def _report(self, stage: Literal["loading", "failed"], message: str) -> None:
        self.status = ModelStatus(stage, message, self._settings.model, demonstration=self._demonstration)
