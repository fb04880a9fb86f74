"""The model: loaded in a thread, while the page is already open, and changed for another.

Tells how far it is and lets others wait for it. While a model is changed there is none, so that nobody begins with one
that goes; when to change it, and what becomes of those who use the former, `app.models.model_switch` knows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from app.chat.answers.answer_work import Thinking
from app.chat.answers.thought_stream import thinking_limit
from app.chat.prompt.plan import PromptPlanner
from app.chat.prompt.template import ChatTokenizer
from app.chat.reading.stretch_notes import stretch_warning, window_note
from app.errors import UserFacingError, explain_import
from app.settings import AppSettings
from quest_core.config import EngineConfig

if TYPE_CHECKING:
    from quest_core.engine import Engine


# The embedded model answers 2 of 16 plain questions about the sample book. Whoever meets it must know.
DEMONSTRATION_NOTE = "A demonstration model, often wrong. For a larger one:"
LARGER_MODEL = "--model Qwen/Qwen3-4B"

# So often an engine elsewhere is asked again that was not there.
_ASK_AGAIN_S = 5.0


@dataclass(frozen=True)
class ModelStatus:
    """How far loading has come; device and window (in tokens) are known once it is "ready".

    `note` says how a conversation is read that outgrows what the model was trained for, `warning` what that costs; both
    are empty where there is nothing to say. `demonstration` is true of the embedded model. `reference` is what
    `--model` takes for it, and `notice` what the user should be told of how this model came to be the one, when another
    was wanted. `engine_url` is the address of the engine that answers, or should; "" where it is our own.
    """

    stage: Literal["starting", "loading", "ready", "failed"]
    message: str
    model: str
    device: str = ""
    context_tokens: int = 0
    note: str = ""
    warning: str = ""
    demonstration: bool = False
    reference: str = ""
    notice: str = ""
    engine_url: str = ""


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
    def vocab_size(self) -> int:
        """Tokens that there are."""
        return self.engine.model_config.vocab_size

    @property
    def is_remote(self) -> bool:
        """Whether another engine has the model (`app.remote`), so that there is no cache to look into."""
        return False

    @property
    def thinking(self) -> Thinking:
        """How the model may think before it answers."""
        tokenizer, limit = self.tokenizer, thinking_limit(self.engine.context_tokens)
        return Thinking(tokenizer.opens_thought, limit, tokenizer.end_of_thought)


class ModelLoader:
    """Loads the model that the settings name, and others after it.

    Args:
        settings: which model.
        config: what the engine is loaded with.
        on_ready: called when it is there, in the thread that has loaded it.
        on_change: called whenever `status` has changed.
        fallback: loaded instead where the first cannot be: that was chosen another day, and may be gone.

    Attributes:
        status: how far it is.
        model: None until it is ready, and while it is changed.
    """

    def __init__(
        self,
        settings: AppSettings,
        config: EngineConfig | None = None,
        on_ready: Callable[[], None] = lambda: None,
        on_change: Callable[[], None] = lambda: None,
        fallback: AppSettings | None = None,
    ) -> None:
        self._config = config or settings.engine_config()
        self._on_ready = on_ready
        self._on_change = on_change
        self._fallback = fallback
        self.model: LoadedModel | None = None
        self.settings = settings
        self.status = self._described("starting", "The model is not loaded yet.", settings)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._former: tuple[LoadedModel | None, AppSettings, ModelStatus] | None = None
        self._forgotten: list[str] = []
        self._refusal = ""
        self._closed = False

    def start(self) -> None:
        """Begin to load; further calls do nothing, but for another engine that has failed: it is asked again."""
        with self._lock:
            # An engine elsewhere may be there by now.
            is_over = self._thread is not None and not self._thread.is_alive() and self.status.stage == "failed"
            if (self._thread is None or (is_over and self.settings.engine_url)) and not self._closed:
                if is_over:
                    self.status = self._described("loading", "Starting", self.settings)
                self._thread = threading.Thread(target=self._load_first, name="model-loader", daemon=True)
                self._thread.start()

    def wait(self) -> LoadedModel:
        """Wait for the model, loading it if nobody has begun to.

        Raises:
            UserFacingError: if it cannot be loaded.
        """
        self.start()
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self.model is not None or self.status.stage == "failed")
            model, has_failed, refusal = self.model, self.status.stage == "failed", self._refusal
        if model is None:
            raise UserFacingError(refusal if has_failed else "Quest Chat is closing.")
        return model

    def close(self) -> None:
        """Let the model go, now or as soon as it is loaded."""
        with self._changed:
            self._closed = True
            former, self._former = self._former, None
            going = [model for model in (self.model, former and former[0]) if model is not None]
            self._changed.notify_all()
        for model in going:
            model.engine.close()

    def forget(self, owner: str) -> None:
        """Keep nothing of a document that a model has read, also of one that is still being loaded.

        Raises:
            OSError: if a file cannot be removed.
        """
        with self._lock:
            engines = [model.engine for model in (self.model, self._former and self._former[0]) if model is not None]
            if self.model is None:
                self._forgotten.append(owner)
        for engine in engines:
            engine.forget(owner)

    # Changing it

    def begin_change(self, wanted: AppSettings, name: str) -> LoadedModel | None:
        """Have no model from now on, until `finish_change` or `undo_change`; one caller at a time.

        Args:
            wanted: name the model that is to be loaded.
            name: of it, for people.

        Returns:
            The model there was; whoever is using it goes on until it is closed.

        Raises:
            UserFacingError: another is being loaded, or the program ends.
        """
        with self._changed:
            if self._closed:
                raise UserFacingError("Quest Chat is closing.")
            if self.status.stage in ("starting", "loading"):
                raise UserFacingError(f"{self.status.model} is being loaded. Choose another model when it is there.")
            former = self.model
            self._former = former, self.settings, self.status
            self.model = None
            self.status = replace(self._described("loading", "Starting", wanted), model=name)
        self._on_change()
        return former

    def undo_change(self, notice: str = "") -> bool:
        """All is as before the change; False if there was no model.

        Args:
            notice: why the other is not there; "" where nothing was tried.
        """
        with self._changed:
            # Nothing is here any more if the program ends.
            former, self._former = self._former, None
            if former is not None:
                self.model, self.settings, status = former
                self.status = replace(status, notice=notice or status.notice)
            is_there = self.model is not None
            self._changed.notify_all()
        self._on_change()
        return is_there

    def let_go(self) -> AppSettings | None:
        """Close the former model for good; returns the settings that would bring it back, None if there was none."""
        with self._lock:
            former, self._former = self._former, None
        if former is None or former[0] is None:
            return None
        former[0].engine.close()
        return former[1]

    @property
    def former(self) -> LoadedModel | None:
        """The model that is being changed; None if there is none, or it was let go."""
        with self._lock:
            return None if self._former is None else self._former[0]

    @property
    def former_name(self) -> str:
        """Of the model that is being changed, for people."""
        with self._lock:
            return "the former model" if self._former is None else self._former[2].model

    def load(self, settings: AppSettings, offline: bool = False) -> tuple[LoadedModel, ModelStatus]:
        """Load a model in this thread; it is not the present one before `finish_change`.

        Args:
            settings: which.
            offline: ask the hub nothing, whatever the settings say.

        Raises:
            UserFacingError: if it cannot be.
        """
        if settings.engine_url:
            from app.remote.remote_model import connect

            self.report(f"Asking {settings.engine_url} what it serves")
            return connect(settings, self._described("ready", "", settings))
        # Imported here, so that the page opens before torch is loaded.
        from quest_core.engine import Engine

        config = replace(
            self._config,
            context_tokens=settings.context_tokens,
            weight_bits=settings.weight_bits,
            offline=settings.offline or offline,
        )
        try:
            engine = Engine.load(settings.model, config, self.report)
            try:
                tokenizer = ChatTokenizer(engine.model_folder)
            except BaseException:
                engine.close()
                raise
        except (ValueError, OSError) as error:
            raise UserFacingError(str(error)) from error
        except ImportError as error:
            about_package = explain_import(error)
            if about_package is None:
                raise
            raise about_package from error
        name, device, window = engine.model_name, engine.device_name, engine.context_tokens
        status = replace(
            self._described("ready", f"{name} is ready on {device}.", settings),
            model=name,
            device=device,
            context_tokens=window,
            note=window_note(engine.trained_tokens, window, engine.rope_factor),
            warning=stretch_warning(engine.rope_factor),
        )
        return LoadedModel(engine, tokenizer, PromptPlanner(tokenizer, window, engine.trained_tokens)), status

    def finish_change(self, model: LoadedModel, status: ModelStatus, settings: AppSettings, notice: str = "") -> bool:
        """Have this model from now on; False if the program ends, and it with it."""
        with self._changed:
            is_late, forgotten = self._closed, self._forgotten
            self._forgotten = []
            if not is_late:
                self.model, self.settings, self.status = model, settings, replace(status, notice=notice)
            self._changed.notify_all()
        if is_late:
            model.engine.close()
            return False
        for owner in forgotten:
            model.engine.forget(owner)
        self._on_change()
        self._on_ready()
        return True

    def fail(self, message: str, standing: str = "") -> None:
        """There is no model, and this is why.

        Args:
            message: for whoever waits for it, and may ask again.
            standing: for the status, if there is another thing to say there.
        """
        with self._changed:
            self._refusal = message
            self.status = replace(self.status, stage="failed", message=standing or message)
            self._changed.notify_all()
        self._on_change()

    def report(self, message: str) -> None:
        """Tell how far loading is, in a few words."""
        with self._lock:
            if self.status.stage in ("starting", "loading"):
                self.status = replace(self.status, stage="loading", message=message)
        self._on_change()

    def _load_first(self) -> None:
        self.report("Starting")
        settings, notice = self.settings, ""
        try:
            try:
                # What was chosen another day is on this machine, or not there any more.
                model, status = self.load(settings, offline=self._fallback is not None)
            except UserFacingError as error:
                if self._fallback is None:
                    raise
                settings = self._fallback
                notice = f"{_short_name(self.settings.model)}, which was chosen last, could not be loaded: {error}"
                with self._lock:
                    self.status = self._described("loading", "Starting", settings)
                model, status = self.load(settings)
        except UserFacingError as error:
            if self._fail_for(error, notice):
                self._ask_again()
        except BaseException as error:  # whoever waits must hear of it, whatever it is
            self.fail(f"The model could not be loaded: {type(error).__name__}: {error}")
            raise
        else:
            self.finish_change(model, status, settings, notice)

    def _fail_for(self, error: UserFacingError, notice: str = "") -> bool:
        """There is no model for this reason; returns whether an engine elsewhere is asked again by itself."""
        may_pass = getattr(error, "may_pass", False)
        standing = error.while_asked_again(_ASK_AGAIN_S) if may_pass else ""
        self.fail(" ".join(filter(None, (error.message, notice))), standing)
        return may_pass

    def _ask_again(self) -> None:
        """Wait for an engine elsewhere that was not there, or was busy."""
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._closed, _ASK_AGAIN_S):
                    return
            try:
                model, status = self.load(self.settings)
            except UserFacingError as error:
                if not self._fail_for(error):
                    return
            else:
                self.finish_change(model, status, self.settings)
                return

    @staticmethod
    def _described(stage: Literal["starting", "loading", "ready"], message: str, settings: AppSettings) -> ModelStatus:
        if settings.engine_url:
            model = settings.engine_model or "the engine's model"
            return ModelStatus(stage, message, model, engine_url=settings.engine_url)
        demonstration = settings.model == AppSettings.model
        return ModelStatus(stage, message, settings.model, demonstration=demonstration, reference=settings.model)


def _short_name(model: str) -> str:
    """A model's name out of what `--model` takes."""
    return model.replace("\\", "/").rstrip("/").rpartition("/")[2]
