"""Changing the model while the app runs: conversations go on with the other, and a failure leaves the former."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest

from app.chat.answers.answer import AnswerOptions
from app.errors import UserFacingError
from app.models import model_switch
from app.models.model_choice import FILE_NAME
from app.models.model_switch import AnswersRunning

SHORT = AnswerOptions(max_new_tokens=4, token_budget=64)


@pytest.fixture
def other_model(tiny_model_folder, tmp_path) -> Path:
    """A second model, of another window and another vocabulary."""
    folder = tmp_path / "named" / "other-model"
    shutil.copytree(tiny_model_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 512}))
    return folder


@pytest.fixture
def opened(open_assistant, other_model):
    """An assistant that knows of both models, whose change it waits for."""
    assistant = open_assistant()
    assistant.models.add_folder(str(other_model.parent))
    assistant.models.add_folder(assistant.settings.model)
    assert assistant.models.local.wait(60)
    return assistant


def switch(assistant, model: Path | str, **options) -> None:
    assistant.switch_model(str(model), **options)
    assistant.models.wait(60)


def answered(assistant, conversation, question: str) -> str:
    *_, last = assistant.answer(conversation, question, SHORT)
    return last.report.model


def test_a_conversation_goes_on_with_the_other_model(opened, other_model, book_path):
    conversation = opened.new_conversation()
    entry = opened.add_document(conversation, book_path)
    opened.library.wait(entry.document_id)
    first = answered(opened, conversation, "Who kept the light?")
    events = []
    watching = opened.telemetry.subscribe(conversation.conversation_id)
    switch(opened, other_model)
    while (event := watching.next(1.0)) is not None:
        events.append(event["type"])
    assert "models" in events
    status = opened.status()
    assert (status.stage, status.model, status.context_tokens) == ("ready", "other-model", 512)
    assert status.reference == str(other_model)
    assert [turn.question for turn in conversation.turns] == ["Who kept the light?"]
    assert conversation.session is None
    assert answered(opened, conversation, "And then?") == "other-model" != first
    assert opened.context_usage(conversation).context_tokens == 512
    # The next start begins with it, but for a window that is asked for then.
    kept = json.loads((opened.settings.data_dir / FILE_NAME).read_text())
    assert kept["chosen"] == {"model": str(other_model), "context_tokens": None, "weight_bits": 16}


def test_tokens_and_reading_rates_are_those_of_the_model_that_is_loaded(opened, other_model, book_path):
    conversation = opened.new_conversation()
    entry = opened.add_document(conversation, book_path)
    opened.library.wait(entry.document_id)
    count, rates_key = opened.document_tokens(entry.document_id), opened._parts.rates_key()
    assert opened.counted_tokens() == {entry.document_id: count}
    switch(opened, other_model)
    assert opened.counted_tokens() == {} and opened._parts.rates_key() != rates_key
    count = opened.document_tokens(entry.document_id)
    assert opened.counted_tokens() == {entry.document_id: count}


def test_what_cannot_be_loaded_leaves_the_former(opened, other_model, monkeypatch):
    conversation = opened.new_conversation()
    (other_model / "tokenizer.json").write_text("{}")
    switch(opened, other_model)
    status = opened.status()
    assert status.stage == "ready" and status.model != "other-model"
    assert "other-model could not be loaded: The tokenizer in" in status.notice and "is still here" in status.notice
    assert answered(opened, conversation, "Who kept the light?") == status.model
    assert not (opened.settings.data_dir / FILE_NAME).read_text().count('"model"')

    # Where there is no room for both, the former is loaded again.
    monkeypatch.setattr(model_switch.ModelSwitch, "_fits_beside", lambda *_: False)
    said = []
    monkeypatch.setattr(opened._loader, "report", said.append)
    former = opened._loader.model
    switch(opened, other_model)
    assert any(one.startswith("Letting ") and "no room for both" in one for one in said)
    assert opened.status().notice.endswith("is back.") and opened._loader.model is not former
    assert answered(opened, conversation, "Who else?") == status.model


def test_a_running_answer_is_stopped_only_if_that_is_said(opened, other_model):
    conversation = opened.new_conversation()
    running = opened.ask(conversation, "Tell everything", AnswerOptions(max_new_tokens=900, token_budget=64))
    follower = running.follow()
    while conversation.model is None:
        next(follower)
    with pytest.raises(AnswersRunning, match="An answer is being made"):
        opened.switch_model(str(other_model))
    assert opened.status().stage == "ready"
    switch(opened, other_model, stop_answers=True)
    assert running.ended and opened.status().model == "other-model"
    assert answered(opened, conversation, "And now?") == "other-model"


def test_two_tabs_and_closing_during_a_change(opened, other_model, monkeypatch):
    load, loading, go_on, loaded = opened._loader.load, threading.Event(), threading.Event(), []

    def slow_load(*arguments, **options):
        loading.set()
        go_on.wait(30)
        loaded.append(load(*arguments, **options))
        return loaded[-1]

    monkeypatch.setattr(opened._loader, "load", slow_load)
    conversation = opened.new_conversation()
    opened.switch_model(str(other_model))
    assert loading.wait(30)
    with pytest.raises(UserFacingError, match="other-model is being loaded"):
        opened.switch_model(opened.settings.model)
    # Who asks now gets the other model.
    running = opened.ask(conversation, "Who kept the light?", SHORT)
    go_on.set()
    *_, last = running.follow()
    assert last.report.model == "other-model"
    go_on.clear(), loading.clear()
    opened.switch_model(opened.settings.model)
    assert loading.wait(30)
    opened.close()
    go_on.set()
    opened.models.wait(30)
    # Nobody is left whose engine runs on.
    assert len(loaded) == 2 and opened._loader.model is None
    for model, _ in loaded:
        with pytest.raises(RuntimeError):
            model.engine.submit(lambda cancellation: iter(()))


def test_what_is_not_in_the_list_is_not_loaded(opened, other_model):
    for reference in ("owner/never-seen", "/etc", "../other-model", ""):
        with pytest.raises(UserFacingError, match="not among those on this machine"):
            opened.switch_model(reference)
    with pytest.raises(UserFacingError, match="--context-tokens must be at least 256"):
        opened.switch_model(str(other_model), context_tokens=4)


def test_the_next_start_takes_what_was_chosen_unless_a_model_is_given(opened, other_model, open_assistant, monkeypatch):
    switch(opened, other_model, context_tokens=400)
    opened.close()
    again = open_assistant(remembers_model=True)
    assert (again.status().model, again.status().context_tokens) == ("other-model", 400)
    assert again.models.local.folders[1] == str(other_model.parent)
    again.close()
    given = open_assistant()
    assert given.status().model != "other-model"
    given.close()
    # A model that is gone is said, and the usual one answers.
    shutil.rmtree(other_model)
    fallback = open_assistant(remembers_model=True)
    status = fallback.status()
    assert status.stage == "ready" and status.notice.startswith("other-model, which was chosen last, could not be")
