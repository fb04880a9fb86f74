"""What the library's head tells the browser, and the context meter of a conversation."""

from __future__ import annotations

import gradio as gr
import pytest

from app.library import ReadLimits
from app.models.model_loader import ModelStatus
from ui.documents_panel import DocumentsPanel


@pytest.fixture
def panel(assistant) -> DocumentsPanel:
    with gr.Blocks(analytics_enabled=False) as blocks:
        made = DocumentsPanel(assistant)
    made.markup = "".join(str(block.value) for block in blocks.blocks.values() if isinstance(block, gr.HTML))
    return made


@pytest.fixture
def conversation(assistant):
    return assistant.new_conversation()


def test_the_browser_is_told_what_can_be_read_and_how_much(panel):
    assert f'most-bytes="{ReadLimits().file_bytes}"' in panel.markup
    assert ".docx,.epub" in panel.markup.replace(".dotx,", "") and "Word (.docx)" in panel.markup


def test_before_the_model_is_loaded_there_is_no_meter(panel, conversation, assistant):
    assistant.loaded = ModelStatus("loading", "Reading the weights", "tiny-model")
    assert "when the model is loaded" in panel.meter_markup(conversation)


def test_the_meter_follows_the_documents_that_are_read(panel, conversation, assistant, tmp_path):
    for name in ("one.txt", "locked.pdf"):
        (tmp_path / name).write_text(name)
        assistant.add_document(conversation, tmp_path / name)
    assert "The whole document is in context." in panel.meter_markup(conversation)
    assistant.remove_document(conversation, conversation.document_ids[0])
    assert "from the model alone" in panel.meter_markup(conversation)
