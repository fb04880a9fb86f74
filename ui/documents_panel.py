"""Documents of a conversation: drop files in, see what is loaded and how much of the window it takes, remove them.

An encrypted PDF stays in the drop zone until its password is given: Gradio checks that the path which comes back from
the browser is one of its own uploads, which a path in a hidden field would escape.
"""

import html
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from app.chat.assistant import Assistant
from app.chat.conversation import Conversation
from app.chat.prompt.document_tokens import TokenCount
from app.chat.prompt.plan import ContextUsage
from app.errors import explain
from app.library import (
    SUPPORTED_SUFFIXES,
    Document,
    PasswordRequired,
    ReadProgress,
    WrongPassword,
    addition_notes,
    encoding_note,
    left_out_note,
    page_notes,
)
from ui.notices import notice_line, shown_to_user, user_error, warn
from ui.page_script import WITH_CONVERSATION
from ui.raw_html import raw_html
from ui.uploaded_files import upload_folder, uploaded_paths
from ui.wording import counted

SAMPLE_BOOK = Path(__file__).resolve().parents[1] / "assets" / "books" / "the-happy-prince.pdf"
# Tells Python which remove button was pressed; the list itself is plain HTML.
_REMOVE_ON_CLICK = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-document-id]");
  if (button) trigger("click", { document_id: button.dataset.documentId });
});
"""


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
            self._progress = raw_html(elem_id="document-progress", visible=False)
            with gr.Column(visible=False, elem_id="password-form") as self._password_form:
                self._password = gr.Textbox(
                    type="password", label="Password of the encrypted PDF", submit_btn="Open", elem_id="password"
                )
            self.list = raw_html(documents_markup([]), js_on_load=_REMOVE_ON_CLICK, elem_id="document-list")
            self._sample = gr.Button("Try the sample book", elem_id="sample-book", size="sm")
            self.meter = raw_html(elem_id="context-meter")

    def connect(self, conversation_id: gr.Textbox) -> None:
        """Attach the handlers.

        Args:
            conversation_id: the hidden field that holds the tab's conversation.
        """
        shown = [self._files, self._password_form, self._password, self._progress, self.list, self.meter]
        plain: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        quick: dict[str, Any] = plain | {"js": WITH_CONVERSATION}
        self._files.upload(self._add_files, [conversation_id, self._files], shown, preprocess=False, **quick)
        self._password.submit(
            self._add_files, [conversation_id, self._files, self._password], shown, preprocess=False, **plain
        )
        # Whoever takes the encrypted file out again is not asked for its password any more.
        for event in (self._files.clear, self._files.delete):
            event(lambda: gr.update(visible=False), None, self._password_form, **plain)
        self._sample.click(self._add_sample_book, conversation_id, shown, **quick)
        self.list.click(self._remove, conversation_id, [self.list, self.meter], **plain)

    def refresh(self, conversation: Conversation) -> tuple[str, str]:
        """Markup of the list and of the meter, as they are now."""
        return self._list_markup(conversation), self.meter_markup(conversation)

    def meter_markup(self, conversation: Conversation) -> str:
        """The context meter; before the model is loaded nobody can count tokens."""
        status = self._assistant.status()
        if status.stage != "ready":
            return '<p class="meter-note">The context meter appears when the model is loaded.</p>'
        try:
            usage = self._assistant.context_usage(conversation)
        except Exception as error:
            # The meter follows every answer, and must not take its end with it.
            return f'<p class="meter-note">{html.escape(explain(error, "The context meter").message)}</p>'
        return meter_markup(usage, conversation.documents, status.note)

    def _list_markup(self, conversation: Conversation) -> str:
        return documents_markup(
            [
                (document, self._assistant.document_tokens(conversation, document.document_id))
                for document in conversation.documents
            ]
        )

    def _add_sample_book(self, conversation_id: str) -> Iterator[list[Any]]:
        yield from self._add_files(conversation_id, [str(SAMPLE_BOOK)])

    def _add_files(
        self, conversation_id: str, files: list[dict[str, Any] | str] | None, password: str = ""
    ) -> Iterator[list[Any]]:
        """Read the files one after the other; those that need a password stay in the drop zone."""
        with shown_to_user("documents"):
            conversation = self._assistant.conversation(conversation_id)
        locked: list[str] = []
        failures: list[str] = []
        notes: list[str] = []
        paths = uploaded_paths(files)
        for number, file in enumerate(map(Path, paths), start=1):
            place = f"{file.name} ({number} of {len(paths)})" if len(paths) > 1 else file.name
            reading = _read_in_thread(self._assistant, conversation, file, password or None, notes)
            try:
                for done_pages, total_pages in reading:
                    yield self._shown(progress=progress_markup(place, done_pages, total_pages))
            except (PasswordRequired, WrongPassword) as error:
                locked.append(str(file))
                if isinstance(error, WrongPassword) or password:
                    warn(error.message, "documents")
                continue
            except Exception as error:
                failures.append(explain(error, f"Reading {file.name}").message)
            _forget_upload(file)
        with shown_to_user("documents"):
            list_markup, meter = self.refresh(conversation)
        yield [
            gr.update(value=locked or None),
            gr.update(visible=bool(locked)),
            gr.update(value="", label=_password_label(locked)),
            gr.update(value="", visible=False),
            list_markup,
            meter,
        ]
        if notes:
            warn("\n".join(notes), "documents")
        if failures:
            raise user_error("\n".join(failures), "documents")

    @staticmethod
    def _shown(progress: str) -> list[Any]:
        nothing = gr.skip()
        return [nothing, nothing, nothing, gr.update(value=progress, visible=True), nothing, nothing]

    def _remove(self, conversation_id: str, event: gr.EventData) -> tuple[str, str]:
        with shown_to_user("documents"):
            conversation = self._assistant.conversation(conversation_id)
            self._assistant.remove_document(conversation, event.document_id)
            return self.refresh(conversation)


def _read_in_thread(
    assistant: Assistant, conversation: Conversation, file: Path, password: str | None, notes: list[str]
) -> Iterator[tuple[int, int]]:
    """Add a document and yield (done, total) pages meanwhile: the reader reports through a callback, Gradio pulls.

    What there is to say of the document is added to `notes`.
    """
    reports: queue.SimpleQueue[ReadProgress | BaseException | None] = queue.SimpleQueue()

    def read() -> None:
        try:
            present = tuple(conversation.documents)
            document = assistant.add_document(conversation, file, password, reports.put)
            notes.extend(addition_notes(document, present))
        except BaseException as error:
            reports.put(error)
        else:
            reports.put(None)

    thread = threading.Thread(target=read, name="add-document", daemon=True)
    yield 0, 0
    thread.start()
    while (report := reports.get()) is not None:
        if isinstance(report, BaseException):
            raise report
        # Of many quick pages only the newest is worth showing.
        while not reports.empty():
            newer = reports.get()
            if newer is None:
                return
            if isinstance(newer, BaseException):
                raise newer
            report = newer
        yield report.done_pages, report.total_pages


def _forget_upload(file: Path) -> None:
    # The text is in memory now; a second copy of the user's document has no business on the disk.
    if file != SAMPLE_BOOK:
        upload_folder().forget(file)


def _password_label(locked: list[str]) -> str:
    if len(locked) == 1:
        return f"{Path(locked[0]).name} is encrypted. Its password:"
    return "These PDFs are encrypted. Their password:"


def documents_markup(entries: list[tuple[Document, TokenCount | None]]) -> str:
    """The list of documents with their sizes and remove buttons.

    Args:
        entries: each document with its tokens, None while they cannot be counted.
    """
    if not entries:
        return '<p class="document-none">No document yet. Drop a PDF, EPUB, text, Markdown or HTML file above.</p>'
    rows = []
    for document, tokens in entries:
        name = html.escape(document.name)
        size = counted(document.page_count, "page") + (f", {tokens} tokens" if tokens is not None else "")
        missing = "".join(f'<span class="document-missing">{html.escape(note)}</span>' for note in page_notes(document))
        encoding = f'<span class="document-note">{html.escape(encoding_note(document))}</span>'
        notes = missing + (encoding if document.assumed_encoding else "")
        rows.append(
            f'<li><span class="document-name" title="{name}">{name}</span><span class="document-size">{size}</span>'
            f"{notes}"
            f'<button type="button" data-document-id="{html.escape(document.document_id)}" '
            f'aria-label="Remove {name}" title="Remove">&#x2715;</button></li>'
        )
    return f"<ul>{''.join(rows)}</ul>"


def progress_markup(place: str, done_pages: int, total_pages: int) -> str:
    """A bar that tells which page of which file is being read."""
    note = f"{done_pages:,} of {counted(total_pages, 'page')}" if total_pages else "opening"
    value = f' value="{done_pages}" max="{total_pages}"' if total_pages else ""
    return (
        f'<div class="reading"><span class="reading-name">Reading {html.escape(place)}</span>'
        f'<span class="reading-pages">{note}</span><progress{value}></progress></div>'
    )


def meter_markup(usage: ContextUsage, documents: list[Document], window_note: str = "") -> str:
    """How the window is filled: a bar of document, conversation and free tokens, what that means, and `window_note`."""
    label = "Document"
    if not documents:
        document_part = 0
        note, state = "Answers come from the model alone until a document is added.", "none"
    elif usage.mode == "whole":
        document_part = min(usage.document_tokens.tokens, usage.context_tokens)
        left_out = left_out_note(documents)
        note, state = f"The whole document is in context{f', except {left_out}' if left_out else ''}.", "whole"
    else:
        document_part, state = usage.passage_tokens, "passages"
        note = f"The text has {usage.document_tokens} tokens, more than the window holds: "
        if usage.passages_are_read:
            label = "Passages"
            note += f"the last answer had {document_part:,} of them in context, and names their pages."
        else:
            label = "Passages, up to"
            note += "each question gets the passages that fit it best, and the answer names their pages."
    taken_tokens = document_part + usage.heading_tokens + usage.conversation_tokens
    free_tokens = max(0, usage.context_tokens - taken_tokens)
    conversation_tokens, context_tokens = usage.conversation_tokens, usage.context_tokens
    about_window = f'<p class="meter-note">{html.escape(window_note)}</p>' if window_note else ""
    bar = "".join(
        f'<span class="meter-{name}" style="flex-grow:{tokens}"></span>'
        for name, tokens in (("document", document_part), ("conversation", conversation_tokens), ("free", free_tokens))
    )
    figures = "".join(
        f'<span><i class="meter-{name}"></i>{label} <b>{value}</b></span>'
        for name, label, value in (
            ("document", label, f"{document_part:,}"),
            ("conversation", "Conversation", f"{conversation_tokens:,}"),
            ("free", "Free", f"{free_tokens:,}"),
        )
    )
    return (
        f'<div class="meter" data-state="{state}"><div class="meter-head"><span>Context window</span>'
        f"<span>{context_tokens:,} tokens</span></div>"
        f'<div class="meter-bar" role="img" aria-label="{document_part:,} tokens of document, {conversation_tokens:,} '
        f'of conversation, {free_tokens:,} free">{bar}</div>'
        f'<div class="meter-figures">{figures}</div><p class="meter-note">{note}</p>{about_window}</div>'
    )
