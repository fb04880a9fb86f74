"""Documents: drop files in, see how far each has been read, and how much of the window the conversation's take.

Adding returns at once; the list is a custom element (`assets/js/document-list.js`) that shows the library as it
changes, and what is done in it comes to `ui.library_panel`.
"""

import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from app.chat.assistant import Assistant
from app.chat.conversation import Conversation
from app.errors import explain
from app.library import SUPPORTED_SUFFIXES
from ui.context_meter import meter_markup
from ui.notices import notice_line, shown_to_user, user_error, warn
from ui.page_script import WITH_CONVERSATION, call_script
from ui.raw_html import raw_html
from ui.tab_conversation import tab_conversation
from ui.uploaded_files import upload_folder, uploaded_paths

SAMPLE_BOOK = Path(__file__).resolve().parents[1] / "assets" / "books" / "the-happy-prince.pdf"
_LOOK_AGAIN = call_script("library", "lookAgain")


class DocumentsPanel:
    """The left column's upper part.

    Args:
        assistant: reads the documents and counts tokens.
    """

    def __init__(self, assistant: Assistant) -> None:
        self._assistant = assistant
        with gr.Column(elem_id="documents-panel", min_width=0):
            raw_html("<h2>Documents</h2>")
            self._files = gr.File(
                file_count="multiple",
                file_types=sorted(SUPPORTED_SUFFIXES),
                show_label=False,
                height=112,
                elem_id="document-files",
            )
            notice_line("documents")
            raw_html("<quest-documents></quest-documents>", js_on_load=None, elem_id="document-list")
            self._sample = gr.Button("Try the sample book", elem_id="sample-book", size="sm")
        # Below the question, where `ui.question_line` puts it.
        self.meter = raw_html(elem_id="context-bar", js_on_load=None, render=False)

    def connect(self, conversation_id: gr.Textbox) -> None:
        """Attach the handlers.

        Args:
            conversation_id: the hidden field that holds the tab's conversation.
        """
        plain: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        # Adding takes a moment, and another file may come meanwhile: by default it would be ignored.
        quick: dict[str, Any] = plain | {"js": WITH_CONVERSATION, "trigger_mode": "multiple"}
        adding = (
            self._files.upload(self._add_files, [conversation_id, self._files], self._files, preprocess=False, **quick),
            self._sample.click(self._add_sample_book, conversation_id, None, **quick),
        )
        for event in adding:
            event.then(None, js=_LOOK_AGAIN)

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

    def _add_sample_book(self, conversation_id: str) -> None:
        with shown_to_user("documents"):
            conversation = tab_conversation(self._assistant, conversation_id)
            for note in self._add(conversation, SAMPLE_BOOK, take=False):
                warn(note, "documents")

    def _add_files(self, conversation_id: str, files: list[dict[str, Any] | str] | None) -> Iterator[None]:
        """Hand the files to the library, which reads them in its own time; yields the emptied drop zone."""
        with shown_to_user("documents"):
            conversation = tab_conversation(self._assistant, conversation_id)
        notes: list[str] = []
        failures: list[str] = []
        for path in map(Path, uploaded_paths(files)):
            try:
                notes += self._add(conversation, path, take=True)
            except Exception as error:
                failures.append(explain(error, f"Adding {path.name}").message)
            upload_folder().forget(path)
        yield None
        if notes:
            warn("\n".join(notes), "documents")
        if failures:
            raise user_error("\n".join(failures), "documents")

    def _add(self, conversation: Conversation, path: Path, take: bool) -> list[str]:
        """Add one file; returns what there is to say of it."""
        present = set(conversation.document_ids)
        entry = self._assistant.add_document(conversation, path, take=take)
        if entry.document_id in present:
            return [f"{path.name} is among the documents already and was not added again."]
        if entry.file_name != path.name:
            return [f"{path.name} has the same content as {entry.file_name}, which is in the library already."]
        return []
