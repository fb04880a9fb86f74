"""Loading and changing the model as others see it: what they wait for, what they are told, what is closed.

The engine is stood in for by one that takes no time; `test_model_switch` changes real ones.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest

from app.errors import UserFacingError
from app.models import model_loader
from app.models.model_loader import LoadedModel, ModelLoader
from app.settings import AppSettings
from quest_core.engine import Engine
from quest_core.errors import ModelError


class FakeEngine:
    """What a loader asks of an engine."""

    device_name, device = "the CPU", SimpleNamespace(type="cpu")
    context_tokens, trained_tokens, rope_factor = 1024, 1024, 1.0
    model_folder = None
    model_config = SimpleNamespace(eos_token_ids=(2, 7))

    def __init__(self, model: str) -> None:
        self.model_name = model.upper()
        self.closing = threading.Event()
        self.forgotten: list[str] = []

    @property
    def closed(self) -> bool:
        return self.closing.is_set()

    def close(self) -> None:
        self.closing.set()

    def forget(self, owner: str) -> None:
        self.forgotten.append(owner)


class Engines:
    """Takes the place of `Engine.load`: notes what was asked for; `errors` says what cannot be loaded."""

    def __init__(self) -> None:
        self.errors: dict[str, Exception] = {}
        self.asked: list[tuple[str, bool]] = []  # model, offline
        self.loaded: list[FakeEngine] = []
        self.loads = threading.Semaphore(0)  # one for each of them
        self.go = threading.Event()  # cleared, it holds up whoever loads
        self.go.set()

    def load(self, model: str, config, on_progress: Callable[[str], None]) -> FakeEngine:
        self.asked.append((model, config.offline))
        on_progress(f"Loading {model}")
        assert self.go.wait(10)
        if model in self.errors:
            raise self.errors[model]
        self.loaded.append(FakeEngine(model))
        self.loads.release()
        return self.loaded[-1]


@pytest.fixture
def engines(monkeypatch) -> Engines:
    engines = Engines()
    monkeypatch.setattr(Engine, "load", engines.load)
    monkeypatch.setattr(model_loader, "ChatTokenizer", lambda folder: SimpleNamespace(stop_token_ids=(9, 2)))
    monkeypatch.setattr(model_loader, "PromptPlanner", lambda *arguments: arguments)
    return engines


@pytest.fixture
def settings(tmp_path) -> AppSettings:
    return AppSettings(tmp_path, model="first")


@pytest.fixture
def make_loader(settings) -> Iterator[Callable[..., ModelLoader]]:
    made = []

    def make(**options) -> ModelLoader:
        made.append(ModelLoader(settings, **options))
        return made[-1]

    yield make
    for loader in made:
        loader.close()


def change(loader: ModelLoader, settings: AppSettings, model: str) -> LoadedModel:
    """As `ModelSwitch` does; returns the new model, which is loaded and not yet the present one."""
    loader.begin_change(replace(settings, model=model), model)
    return loader.load(replace(settings, model=model))


def in_thread(work: Callable[[], object]) -> tuple[threading.Thread, list]:
    """What `work` returns, or raises, is in the list once the thread has ended."""
    results = []

    def run() -> None:
        try:
            results.append(work())
        except UserFacingError as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, results


def test_whoever_waits_gets_the_model_and_all_hear_how_far_it_is(engines, make_loader):
    told, ready, is_ready = [], [], threading.Event()

    def note_ready() -> None:
        ready.append(loader.model)
        is_ready.set()

    loader = make_loader(
        on_change=lambda: told.append((loader.status.stage, loader.status.message)), on_ready=note_ready
    )
    assert (loader.status.stage, loader.model) == ("starting", None)
    loader.start()
    model = loader.wait()
    loader.start()
    assert loader.wait() is model is loader.model
    assert is_ready.wait(10)
    assert told == [("loading", "Starting"), ("loading", "Loading first"), ("ready", "FIRST is ready on the CPU.")]
    assert ready == [model] and engines.asked == [("first", False)]
    assert (loader.status.model, loader.status.reference, loader.status.context_tokens) == ("FIRST", "first", 1024)
    # By the tokenizer's account or the model's.
    assert model.stop_token_ids == (2, 7, 9)


def test_what_cannot_be_loaded_is_told_to_whoever_waits(engines, make_loader):
    engines.errors["first"] = ModelError("There is no model 'first'.")
    loader = make_loader()
    for _ in range(2):
        with pytest.raises(UserFacingError, match="There is no model 'first'"):
            loader.wait()
    assert (loader.status.stage, loader.model, len(engines.asked)) == ("failed", None, 1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_waits_for_ever_after_a_fault_of_ours(engines, make_loader):
    engines.errors["first"] = RuntimeError("on purpose")
    with pytest.raises(UserFacingError, match="could not be loaded: RuntimeError: on purpose"):
        make_loader().wait()


def test_an_engine_without_a_tokenizer_is_closed(engines, make_loader, monkeypatch):
    def fail(folder):
        raise ValueError("The tokenizer is damaged.")

    monkeypatch.setattr(model_loader, "ChatTokenizer", fail)
    with pytest.raises(UserFacingError, match="The tokenizer is damaged"):
        make_loader().wait()
    assert engines.loaded[0].closed


def test_what_was_chosen_another_day_gives_way_to_the_fallback(engines, make_loader, settings):
    engines.errors["first"] = ModelError("It is gone.")
    loader = make_loader(fallback=replace(settings, model="second"))
    assert loader.wait().engine.model_name == "SECOND"
    # The hub is not asked for a choice of another day, but for what the settings say.
    assert engines.asked == [("first", True), ("second", False)]
    assert loader.status.notice == "first, which was chosen last, could not be loaded: It is gone."
    assert loader.settings.model == loader.status.reference == "second"

    engines.errors["second"] = ModelError("Neither is here.")
    with pytest.raises(UserFacingError, match="Neither is here. first, which was chosen last"):
        make_loader(fallback=replace(settings, model="second")).wait()


def test_while_it_is_changed_there_is_none_and_others_wait_for_the_new_one(engines, make_loader, settings):
    loader = make_loader()
    former = loader.wait()
    model, status = change(loader, settings, "second")
    assert (loader.model, loader.former, loader.former_name) == (None, former, "FIRST")
    assert (loader.status.stage, loader.status.model) == ("loading", "second")
    with pytest.raises(UserFacingError, match="second is being loaded"):
        loader.begin_change(settings, "third")
    waiter, got = in_thread(loader.wait)
    assert loader.let_go().model == "first" and former.engine.closed
    assert not got
    assert loader.finish_change(model, status, replace(settings, model="second"))
    waiter.join(10)
    assert got == [model] and not model.engine.closed
    assert loader.settings.model == "second"


def test_a_change_undone_leaves_all_as_it_was(engines, make_loader, settings):
    loader = make_loader()
    former = loader.wait()
    before = loader.status
    loader.begin_change(replace(settings, model="second"), "second")
    assert loader.undo_change("second does not fit.")
    assert loader.wait() is former and not former.engine.closed
    assert loader.status == replace(before, notice="second does not fit.")
    assert loader.settings.model == "first" and loader.former is None


def test_closing_lets_go_of_every_model_also_of_one_that_comes_late(engines, make_loader, settings):
    loader = make_loader()
    former = loader.wait()
    model, status = change(loader, settings, "second")
    assert all(engines.loads.acquire(timeout=10) for _ in range(2))
    loader.close()
    assert former.engine.closed
    assert not loader.finish_change(model, status, settings)
    assert model.engine.closed and loader.model is None

    engines.go.clear()
    late = make_loader()
    late.start()
    waiter, got = in_thread(late.wait)
    late.close()
    waiter.join(10)
    assert str(got[0]) == "Quest Chat is closing."
    engines.go.set()
    assert engines.loads.acquire(timeout=10)
    assert engines.loaded[-1].closing.wait(10)


def test_a_document_that_goes_is_forgotten_by_every_model(engines, make_loader, settings):
    loader = make_loader()
    former = loader.wait()
    loader.forget("one")
    model, status = change(loader, settings, "second")
    loader.forget("two")
    assert former.engine.forgotten == ["one", "two"] and model.engine.forgotten == []
    loader.finish_change(model, status, settings)
    assert model.engine.forgotten == ["two"]
