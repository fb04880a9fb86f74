"""The library: search, the list of conversations, and what is done in both lists.

The lists are custom elements (`document-list.js` and `conversation-list.js` in `assets/js/library/`) that take what
they show from `/library`; what is done there comes here as an event, by the name of one of the actions below.
"""

from typing import Any

import gradio as gr

from app.chat.assistant import Assistant
from app.chat.conversations.conversation import Conversation
from app.errors import UserFacingError
from ui.live_panel import LivePanel
from ui.notices import notice_line, shown_to_user, warn
from ui.page_script import WITH_PRESENT_CONVERSATION, call_script
from ui.raw_html import raw_html
from ui.tab_conversation import tab_conversation

# What the lists want, and which conversation the tab is to show.
_TELL_ACTIONS = """
window.addEventListener("quest-library-action", (event) => trigger("click", event.detail));
window.addEventListener("quest-open", (event) => trigger("select", event.detail));
"""
_ACTED = call_script("library/library", "acted")
_LOOK_AGAIN = call_script("library/library", "lookAgain")
_SEARCH = """
<input type="search" id="library-search" placeholder="Search" autocomplete="off"
  aria-label="Search documents and chats" maxlength="200">
<p id="library-found" class="only-read-out" role="status"></p>
"""
_GONE = "The conversation of this address is not here any more. This is another one."


class LibraryPanel:
    """Search field and list of conversations.

    Args:
        assistant: keeps both.
        live_panel: belongs to the tab's conversation.
    """

    def __init__(self, assistant: Assistant, live_panel: LivePanel) -> None:
        self._assistant = assistant
        self._live_panel = live_panel
        with gr.Column(elem_id="conversations-panel", min_width=0):
            notice_line("library")
            raw_html(
                "<quest-conversations></quest-conversations>", js_on_load=None, elem_id="conversation-list"
            )
            self._actions = raw_html(js_on_load=_TELL_ACTIONS, elem_id="library-actions", visible="hidden")

    @staticmethod
    def search_field() -> None:
        """Put the search field here: it filters both lists and stands above them."""
        raw_html(_SEARCH, js_on_load=None, elem_id="library-search-field")

    def connect(self, conversation_id: gr.Textbox) -> None:
        """Attach the handlers.

        Args:
            conversation_id: the hidden field that holds the tab's conversation.
        """
        shown = [conversation_id, self._live_panel.panel]
        plain: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        # What is done quickly, one after the other, is all done.
        acted = self._actions.click(
            self._act, conversation_id, shown, js=WITH_PRESENT_CONVERSATION, trigger_mode="multiple", **plain
        )
        opened = self._actions.select(self._open, None, shown, trigger_mode="multiple", **plain)
        for event, script in ((acted, _ACTED), (opened, _LOOK_AGAIN)):
            # Gradio's `then` is not called after a failure.
            for after in (event.then, event.failure):
                after(None, js=script)
                after(None, conversation_id, None, js=call_script("chat/conversation", "arrive"))

    def open(self, wanted_id: str) -> tuple[str, str]:
        """The conversation that a tab shows as it opens, and its live panel.

        Args:
            wanted_id: that of the tab's address, "" if it names none.
        """
        with shown_to_user():
            try:
                conversation = self._assistant.open_conversation(wanted_id or "")
            except UserFacingError:
                if not wanted_id:
                    raise
                conversation = self._assistant.open_conversation("")
                warn(_GONE)
        if self._assistant.notice:
            warn(self._assistant.notice, "library")
        return self._opened(conversation)

    def _opened(self, conversation: Conversation) -> tuple[str, str]:
        if conversation.unkept_reason:
            warn(f"This conversation is not stored. {conversation.unkept_reason}")
        opened_id = conversation.conversation_id
        return opened_id, self._live_panel.markup(opened_id)

    def _open(self, event: gr.EventData) -> tuple[str, str]:
        with shown_to_user("library"):
            return self._opened(tab_conversation(self._assistant, event.conversation_id))

    def _new(self, conversation_id: str) -> tuple[Any, Any]:
        """A new conversation, unless the tab's is one still."""
        with shown_to_user():
            conversation = tab_conversation(self._assistant, conversation_id)
            is_new = not (conversation.turns or conversation.document_ids)
            if is_new and self._assistant.running_answer(conversation) is None:
                return gr.skip(), gr.skip()
            return self._opened(self._assistant.new_conversation())

    def _act(self, conversation_id: str, event: gr.EventData) -> tuple[Any, Any]:
        """Do what a list asks for; returns the tab's conversation and live panel, if they change."""
        action = str(event.action)
        with shown_to_user("documents" if action.endswith("document") else "library"):
            if action == "new":
                return self._new(conversation_id)
            if action.endswith("document"):
                self._act_on_document(action, conversation_id, str(event.document_id), event)
            elif action.endswith("conversation"):
                return self._act_on_conversation(action, conversation_id, str(event.conversation_id), event)
        return gr.skip(), gr.skip()

    def _act_on_document(self, action: str, conversation_id: str, document_id: str, event: gr.EventData) -> None:
        assistant = self._assistant
        if action == "add_sample_document":
            assistant.add_sample_book(tab_conversation(assistant, conversation_id), document_id)
        elif action == "attach_document":
            assistant.attach_document(tab_conversation(assistant, conversation_id), document_id)
        elif action == "take_out_document":
            assistant.remove_document(tab_conversation(assistant, conversation_id), document_id)
        elif action == "rename_document":
            assistant.library.rename(document_id, str(event.name))
        elif action == "unlock_document":
            assistant.library.unlock(document_id, str(event.password))
        elif action == "retry_document":
            assistant.library.retry(document_id)
        elif action == "recognise_document":
            assistant.library.recognise(document_id)
        elif action == "stop_recognising_document":
            assistant.library.stop_recognising(document_id)
        elif action == "remove_document":
            assistant.delete_document(document_id)

    def _act_on_conversation(
        self, action: str, conversation_id: str, acted_id: str, event: gr.EventData
    ) -> tuple[Any, Any]:
        assistant = self._assistant
        if action == "rename_conversation":
            assistant.rename_conversation(acted_id, str(event.title))
        elif action == "delete_conversation":
            assistant.delete_conversation(acted_id)
            if acted_id == conversation_id:
                return self._opened(assistant.open_conversation(""))
        elif action == "undelete_conversation":
            assistant.undelete_conversation(acted_id)
            if event.was_open:
                return self._opened(assistant.open_conversation(acted_id))
        return gr.skip(), gr.skip()
