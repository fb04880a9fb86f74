"""What is done in the lists of documents and conversations, and which conversation a tab opens with."""

from __future__ import annotations

from types import SimpleNamespace

import gradio as gr
import pytest

from app.errors import UserFacingError
from ui.library_panel import LibraryPanel
from ui.live_panel import LivePanel


@pytest.fixture
def panel(assistant) -> LibraryPanel:
    with gr.Blocks(analytics_enabled=False):
        return LibraryPanel(assistant, LivePanel(4))


@pytest.fixture
def conversation(assistant):
    return assistant.new_conversation()


def act(panel, conversation, action, **values):
    """Do it in the conversation's tab; returns the id of the conversation that the tab is given, or None."""
    opened_id, live = panel._act(conversation.conversation_id, SimpleNamespace(action=action, **values))
    if opened_id == gr.skip():
        assert live == gr.skip()
        return None
    assert f'conversation-id="{opened_id}"' in live
    return opened_id


def begin(assistant, conversation, question: str = "Where?"):
    assistant.ask(conversation, question, None).join(10)


def add(assistant, conversation, folder, name: str) -> str:
    path = folder / name
    path.write_text(name)
    return assistant.add_document(conversation, path).document_id


def test_a_tab_opens_with_what_its_address_names(panel, assistant, conversation):
    other = assistant.new_conversation()
    assert panel.open(conversation.conversation_id)[0] == conversation.conversation_id
    assert panel.open(other.conversation_id)[0] == other.conversation_id


def test_a_tab_without_an_address_opens_the_last_used_one_that_nobody_watches(panel, assistant, conversation):
    begin(assistant, conversation)
    assert panel.open("")[0] == panel.open(None)[0] == conversation.conversation_id
    subscription = assistant.telemetry.subscribe(conversation.conversation_id)
    assert panel.open("")[0] != conversation.conversation_id
    subscription.close()


def test_a_tab_whose_conversation_is_gone_is_told_and_gets_another(panel, assistant):
    with pytest.warns(UserWarning, match="not here any more"):
        opened_id, _ = panel.open("<gone>")
    assert opened_id in assistant.conversations


def test_a_tab_for_which_none_can_be_opened_is_told(panel, assistant, monkeypatch):
    def no_room(conversation_id):
        raise UserFacingError("The disk is full.")

    monkeypatch.setattr(assistant, "open_conversation", no_room)
    with pytest.raises(gr.Error, match="The disk is full"):
        panel.open("")


def test_a_conversation_that_cannot_be_stored_is_told(panel, conversation):
    conversation.unkept_reason = "The disk is full. Free some of it."
    with pytest.warns(UserWarning, match="not stored. The disk is full"):
        panel._open(SimpleNamespace(conversation_id=conversation.conversation_id))


def test_what_became_of_the_data_folder_is_told_as_a_tab_opens(panel, assistant):
    assistant.notice = "The database was damaged. It was put aside."
    with pytest.warns(UserWarning, match="put aside"):
        panel.open("")


def test_another_conversation_is_opened_and_one_that_is_gone_is_not(panel, conversation):
    assert panel._open(SimpleNamespace(conversation_id=conversation.conversation_id))[0] == conversation.conversation_id
    for gone in ("gone", "", None, 7):
        with pytest.raises(gr.Error):
            panel._open(SimpleNamespace(conversation_id=gone))


def test_a_new_conversation_leaves_the_old_one_as_it_is(panel, assistant, conversation):
    assert act(panel, conversation, "new") is None
    begin(assistant, conversation)
    assert act(panel, conversation, "new") not in (None, conversation.conversation_id)
    assert panel._new(conversation.conversation_id)[0] != conversation.conversation_id
    assert len(conversation.turns) == 1


def test_the_conversation_of_the_tab_is_deleted_and_comes_back(panel, assistant, conversation):
    begin(assistant, conversation)
    deleted_id = conversation.conversation_id
    opened_id = act(panel, conversation, "delete_conversation", conversation_id=deleted_id)
    assert opened_id not in (None, deleted_id)
    assert assistant.conversation_summaries() == []
    tab = SimpleNamespace(conversation_id=opened_id)
    assert act(panel, tab, "undelete_conversation", conversation_id=deleted_id, was_open=True) == deleted_id
    assert [one.title for one in assistant.conversation_summaries()] == ["Where?"]


def test_another_conversation_is_renamed_and_deleted_and_the_tab_stays(panel, assistant, conversation):
    other = assistant.new_conversation()
    begin(assistant, other)
    acted = {"conversation_id": other.conversation_id}
    assert act(panel, conversation, "rename_conversation", title="<b>", **acted) is None
    assert assistant.conversation_summaries()[0].title == "<b>"
    assert act(panel, conversation, "delete_conversation", **acted) is None
    assert act(panel, conversation, "undelete_conversation", was_open=False, **acted) is None
    assert len(assistant.conversation_summaries()) == 1


def test_documents_are_taken_out_added_renamed_and_removed(panel, assistant, conversation, tmp_path):
    document_id = add(assistant, conversation, tmp_path, "one.txt")
    act(panel, conversation, "take_out_document", document_id=document_id)
    assert conversation.document_ids == [] and len(assistant.library.entries()) == 1
    act(panel, conversation, "attach_document", document_id=document_id)
    assert conversation.document_ids == [document_id]
    act(panel, conversation, "rename_document", document_id=document_id, name="<b>")
    assert assistant.library.entry(document_id).name == "<b>"
    act(panel, conversation, "remove_document", document_id=document_id)
    assert conversation.document_ids == assistant.library.entries() == []
    with pytest.raises(gr.Error, match="not in the library any more"):
        act(panel, conversation, "attach_document", document_id=document_id)


def test_a_locked_document_takes_its_password(panel, assistant, conversation, tmp_path):
    document_id = add(assistant, conversation, tmp_path, "locked.pdf")
    for password, state in (("wrong", "locked"), ("sesame", "read")):
        act(panel, conversation, "unlock_document", document_id=document_id, password=password)
        assert assistant.library.entry(document_id).state == state


def test_whoever_calls_without_the_page_changes_nothing(panel, conversation):
    for action in ("", None, "close", "_document", "conversation"):
        assert act(panel, conversation, action, document_id="x", conversation_id="x") is None
