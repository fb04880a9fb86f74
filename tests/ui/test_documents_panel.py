"""Adding and removing documents, passwords, the list and the context meter."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import pytest

from app.chat.model_loader import ModelStatus
from app.chat.prompt.document_tokens import TokenCount
from app.chat.prompt.plan import ContextUsage
from app.library import Document, DocumentPage
from ui.documents_panel import SAMPLE_BOOK, DocumentsPanel, documents_markup, meter_markup, progress_markup


@pytest.fixture
def panel(assistant) -> DocumentsPanel:
    with gr.Blocks(analytics_enabled=False):
        return DocumentsPanel(assistant)


@pytest.fixture
def conversation(assistant):
    return assistant.open_conversation()


def upload(folder, name: str) -> str:
    path = folder / name
    path.write_text("High above the city", encoding="utf-8")
    return str(path)


def add(panel, conversation, files, password=""):
    """All that adding files makes the page show: (files, password form, password, progress, list, meter) each."""
    return list(panel._add_files(conversation.conversation_id, files, password))


def test_the_sample_book_is_there():
    assert SAMPLE_BOOK.read_bytes().startswith(b"%PDF")


def test_several_files_are_read_with_progress_and_listed(panel, conversation, tmp_path):
    updates = add(panel, conversation, [upload(tmp_path, "one.txt"), upload(tmp_path, "two.txt")])
    progress = [update[3]["value"] for update in updates[:-1]]
    assert any("one.txt (1 of 2)" in markup for markup in progress)
    assert any("two.txt (2 of 2)" in markup for markup in progress)
    files, form, _, bar, listed, meter = updates[-1]
    assert (files["value"], form["visible"], bar["visible"]) == (None, False, False)
    assert "one.txt" in listed and "two.txt" in listed and "1,204 tokens" in listed
    assert "2,408" in meter


def test_an_uploaded_file_is_not_kept_once_it_is_read(panel, conversation, tmp_path):
    path = upload(tmp_path, "one.txt")
    add(panel, conversation, [path])
    assert not any(tmp_path.iterdir())


def test_an_encrypted_file_stays_until_its_password_is_given(panel, conversation, tmp_path):
    files = [upload(tmp_path, "locked.pdf"), upload(tmp_path, "open.txt")]
    shown = add(panel, conversation, files)[-1]
    assert shown[0]["value"] == [files[0]]
    assert shown[1]["visible"]
    assert "locked.pdf" in shown[2]["label"]
    assert "open.txt" in shown[4] and "locked.pdf" not in shown[4]

    shown = add(panel, conversation, shown[0]["value"], "wrong")[-1]
    assert (shown[0]["value"], shown[1]["visible"]) == ([files[0]], True)

    shown = add(panel, conversation, shown[0]["value"], "sesame")[-1]
    assert (shown[0]["value"], shown[1]["visible"], shown[2]["value"]) == (None, False, "")
    assert "locked.pdf" in shown[4]


def test_one_unreadable_file_does_not_stop_the_others(panel, conversation, tmp_path):
    updates = []
    with pytest.raises(gr.Error, match="broken.pdf is damaged"):
        for update in panel._add_files(
            conversation.conversation_id, [upload(tmp_path, "broken.pdf"), upload(tmp_path, "open.txt")]
        ):
            updates.append(update)
    assert [document.name for document in conversation.documents] == ["open.txt"]
    assert "open.txt" in updates[-1][4]
    assert not updates[-1][3]["visible"]


def test_an_error_that_nobody_foresaw_is_told(panel, conversation, assistant, tmp_path, monkeypatch):
    monkeypatch.setattr(assistant, "add_document", lambda *arguments: 1 / 0)
    updates = []
    with pytest.raises(gr.Error, match="Reading one.txt failed.*ZeroDivisionError"):
        for update in panel._add_files(conversation.conversation_id, [upload(tmp_path, "one.txt")]):
            updates.append(update)
    assert updates[-1][3]["visible"] is False
    with pytest.raises(gr.Error, match="AttributeError"):
        panel._remove(conversation.conversation_id, SimpleNamespace())


def test_remove(panel, conversation, tmp_path):
    add(panel, conversation, [upload(tmp_path, "one.txt"), upload(tmp_path, "two.txt")])
    listed, meter = panel._remove(conversation.conversation_id, SimpleNamespace(document_id="one"))
    assert "one.txt" not in listed and "two.txt" in listed
    assert "1,204" in meter


def test_what_there_is_to_say_of_a_document_is_said_when_it_is_added(panel, conversation, tmp_path, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr("ui.documents_panel.warn", lambda sentence, place: said.append(sentence))
    add(panel, conversation, [upload(tmp_path, "one.txt")])
    assert said == []
    # The scripted assistant takes the stem for the content.
    add(panel, conversation, [upload(tmp_path, "two.txt"), upload(tmp_path, "one.md")])
    assert said == ["one.md has the same content as one.txt."]


def test_before_the_model_is_loaded_documents_are_listed_without_tokens(panel, conversation, assistant, tmp_path):
    assistant.loaded = ModelStatus("loading", "Reading the weights", "tiny-model")
    listed, meter = add(panel, conversation, [upload(tmp_path, "one.txt")])[-1][4:]
    assert "1 page" in listed and "tokens" not in listed
    assert "when the model is loaded" in meter


def test_file_names_are_escaped():
    document = Document("id", "<img src=x>.txt", SAMPLE_BOOK, (DocumentPage(0, "1", "text"),), ("1",))
    listed = documents_markup([(document, TokenCount(3))])
    assert "<img" not in listed
    assert "1 page unreadable" in listed
    assert "<img" not in progress_markup("<img src=x>.txt", 1, 2)


def test_pages_without_text_are_named_in_the_list_and_counted_in_the_meter():
    pages = (DocumentPage(0, "1", "text"), DocumentPage(1, "<b>", ""), DocumentPage(2, "3", ""))
    document = Document("id", "book.pdf", SAMPLE_BOOK, pages, ("3",), ("<b>",))
    listed = documents_markup([(document, TokenCount(3))])
    assert "page &lt;b&gt; is a picture: its text cannot be read" in listed and "1 page unreadable (page 3)" in listed
    meter = meter_markup(ContextUsage(TokenCount(6310), 40, 8192, "whole"), [document])
    assert "in context, except 1 page that is a picture and 1 page that is unreadable." in meter


def test_an_encoding_that_is_a_guess_is_shown_in_the_list():
    document = Document("id", "a.txt", SAMPLE_BOOK, (DocumentPage(0, "1", "text"),), assumed_encoding="Big5 <Chinese>")
    assert "not certain, read as Big5 &lt;Chinese&gt;" in documents_markup([(document, None)])
    assert "document-note" not in documents_markup([(replace(document, assumed_encoding=""), None)])


def test_meter_tells_the_whole_document_from_passages(panel, conversation, assistant, tmp_path):
    add(panel, conversation, [upload(tmp_path, "one.txt")])
    whole = meter_markup(ContextUsage(TokenCount(6310), 40, 8192, "whole"), conversation.documents)
    assert "The whole document is in context" in whole
    assert "6,310" in whole and "1,842" in whole
    before = ContextUsage(TokenCount(90_000), 40, 8192, "passages", passage_tokens=7700)
    passages = meter_markup(before, conversation.documents)
    assert "90,000 tokens" in passages and "Passages, up to <b>7,700</b>" in passages and "Free <b>452</b>" in passages
    read = replace(before, passage_tokens=381, passages_are_read=True, heading_tokens=20)
    passages = meter_markup(read, conversation.documents)
    assert "Passages <b>381</b>" in passages and "Free <b>7,751</b>" in passages
    assert "the last answer had 381 of them in context" in passages
    estimated = replace(before, document_tokens=TokenCount(16_100_000, is_exact=False))
    assert "The text has about 16,100,000 tokens" in meter_markup(estimated, conversation.documents)
    assert "7,700" not in meter_markup(before, [])


def test_meter_tells_of_a_stretched_window():
    usage = ContextUsage(TokenCount(0), 40, 8192, "whole")
    assert "read again &amp; again" in meter_markup(usage, [], "read again & again")
    assert meter_markup(usage, []).count("meter-note") == 1
