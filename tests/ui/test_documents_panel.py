"""Adding documents, and the context meter of a conversation. What the list shows is tested in a browser."""

from __future__ import annotations

import gradio as gr
import pytest

from app.models.model_loader import ModelStatus
from ui.documents_panel import SAMPLE_BOOK, DocumentsPanel


@pytest.fixture
def panel(assistant) -> DocumentsPanel:
    with gr.Blocks(analytics_enabled=False):
        return DocumentsPanel(assistant)


@pytest.fixture
def conversation(assistant):
    return assistant.new_conversation()


@pytest.fixture
def told(monkeypatch) -> list[str]:
    """What is told beside the documents."""
    told: list[str] = []
    monkeypatch.setattr("ui.documents_panel.warn", lambda sentence, place: told.append(sentence))
    return told


def upload(folder, name: str, text: str = "") -> str:
    path = folder / name
    path.write_text(text or name, encoding="utf-8")
    return str(path)


def add(panel, conversation, files):
    list(panel._add_files(conversation.conversation_id, files))


def names(assistant, conversation) -> list[str]:
    return [assistant.library.entry(document_id).name for document_id in conversation.document_ids]


def test_the_sample_book_is_there_and_stays_there(panel, conversation, assistant):
    assert SAMPLE_BOOK.read_bytes().startswith(b"%PDF")
    panel._add_sample_book(conversation.conversation_id)
    assert names(assistant, conversation) == [SAMPLE_BOOK.name] and SAMPLE_BOOK.exists()


def test_adding_returns_at_once_and_empties_the_drop_zone(panel, conversation, assistant, told, tmp_path):
    assistant.library.reads.clear()
    files = [upload(tmp_path, "one.txt"), upload(tmp_path, "two.txt")]
    assert list(panel._add_files(conversation.conversation_id, files)) == [None]
    assert names(assistant, conversation) == ["one.txt", "two.txt"]
    assert {entry.state for entry in assistant.library.entries()} == {"reading"}
    # The library has what was uploaded; nobody needs it twice.
    assert not any(tmp_path.iterdir())
    assert told == []
    assistant.library.reads.set()


def test_one_file_that_cannot_be_added_does_not_stop_the_others(panel, conversation, assistant, tmp_path, monkeypatch):
    added = assistant.library.add

    def failing(path, *rest):
        return 1 / 0 if "one" in path.name else added(path, *rest)

    monkeypatch.setattr(assistant.library, "add", failing)
    with pytest.raises(gr.Error, match="Adding one.txt failed on an error in Quest Chat .ZeroDivisionError"):
        add(panel, conversation, [upload(tmp_path, "one.txt"), upload(tmp_path, "two.txt")])
    assert names(assistant, conversation) == ["two.txt"]
    assert not any(tmp_path.iterdir())


def test_the_same_bytes_twice_are_told(panel, conversation, assistant, told, tmp_path):
    add(panel, conversation, [upload(tmp_path, "one.txt", "High")])
    add(panel, conversation, [upload(tmp_path, "one.txt", "High")])
    assert told == ["one.txt is among the documents already and was not added again."]
    other = assistant.new_conversation()
    add(panel, other, [upload(tmp_path, "two.txt", "High")])
    assert told[1:] == ["two.txt has the same content as one.txt, which is in the library already."]
    assert names(assistant, conversation) == names(assistant, other) == ["one.txt"]


def test_before_the_model_is_loaded_there_is_no_meter(panel, conversation, assistant):
    assistant.loaded = ModelStatus("loading", "Reading the weights", "tiny-model")
    assert "when the model is loaded" in panel.meter_markup(conversation)


def test_the_meter_follows_the_documents_that_are_read(panel, conversation, assistant, tmp_path):
    add(panel, conversation, [upload(tmp_path, "one.txt"), upload(tmp_path, "locked.pdf")])
    assert "The whole document is in context." in panel.meter_markup(conversation)
    assistant.remove_document(conversation, conversation.document_ids[0])
    assert "from the model alone" in panel.meter_markup(conversation)
