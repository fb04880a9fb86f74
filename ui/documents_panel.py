"""The library's documents, and how much of the window the conversation's take.

Both parts are custom elements: `assets/js/library/add-documents.js` sends files to `app.web.document_upload`, and
`assets/js/library/document-list.js` shows the library as it changes; what is done in it comes to `ui.library_panel`.
"""

import html

import gradio as gr

from app.chat.assistant import Assistant
from app.chat.conversations.conversation import Conversation
from app.errors import explain
from app.library import SUPPORTED_SUFFIXES
from app.library.formats import SUPPORTED_NAMES
from app.web.document_upload import MOST_BYTES
from ui.chat.context_meter import meter_markup
from ui.notices import notice_line
from ui.raw_html import raw_html

_ADD = (
    f'<quest-add-documents accept="{",".join(sorted(SUPPORTED_SUFFIXES))}" supported="{html.escape(SUPPORTED_NAMES)}" '
    f'most-bytes="{MOST_BYTES}"><h2>Library</h2></quest-add-documents>'
)


class DocumentsPanel:
    """The left zone's upper part.

    Args:
        assistant: reads the documents and counts tokens.
    """

    def __init__(self, assistant: Assistant) -> None:
        self._assistant = assistant
        with gr.Column(elem_id="documents-panel", min_width=0):
            raw_html(_ADD, js_on_load=None, elem_id="document-files")
            notice_line("documents")
            raw_html("<quest-documents></quest-documents>", js_on_load=None, elem_id="document-list")
        # Below the question, where `ui.chat.question_line` puts it.
        self.meter = raw_html(elem_id="context-bar", js_on_load=None, render=False)

    def meter_markup(self, conversation: Conversation) -> str:
        """The context meter; before the model is loaded nobody can count tokens."""
        status = self._assistant.status()
        if status.stage != "ready":
            return '<p class="meter-note">The context meter appears when the model is loaded.</p>'
        try:
            usage = self._assistant.context_usage(conversation)
            entries = self._assistant.entries(conversation)
        except Exception as error:
            # The meter follows every answer, and must not take its end with it.
            return f'<p class="meter-note">{html.escape(explain(error, "The context meter").message)}</p>'
        return meter_markup(usage, [entry for entry in entries if entry.state == "read"], status.note)
