"""Puts the panels together: library, documents and settings at the left, chat or comparison at the right.

Each browser tab shows a conversation, whose id stands in a hidden field and in the tab's address
(`assets/js/conversation.js`); a `gr.State` would hold it as well but makes Gradio keep one more connection open per
tab, and a browser allows six to a server.
"""

import html

import gradio as gr

from app.chat.assistant import Assistant
from app.errors import UserFacingError
from app.models.model_loader import DEMONSTRATION_NOTE, LARGER_MODEL
from app.settings import AppSettings
from app.web.server import PAGE_FILES_PATH, Page
from ui.chat_panel import ChatPanel
from ui.compare_panel import ComparePanel
from ui.side_panel import column_tabs, document_view
from ui.documents_panel import DocumentsPanel
from ui.library_panel import LibraryPanel
from ui.live_panel import LivePanel
from ui.page_script import call_script
from ui.raw_html import raw_html
from ui.settings_panel import SettingsPanel
from ui.tab_conversation import tab_conversation
from ui.theme import quest_theme
from ui.uploaded_files import CheckedBlocks

_STYLE_SHEETS = ("page.css", "desk.css", "panels.css", "messages.css", "notices.css", "library.css")
_HEAD = "\n".join(
    [
        # Gradio's "Loading" covers the window and stands still, however the style sheets arrive below it.
        "<style>.gradio-container > .main > .wrap.full { position: fixed !important; inset: 0; }</style>",
        *(f'<link rel="stylesheet" href="{PAGE_FILES_PATH}/css/{name}">' for name in _STYLE_SHEETS),
        # Used inside the live panel alone, which appears with the page and must not be seen without it.
        f'<link rel="preload" as="style" href="{PAGE_FILES_PATH}/css/live-panel.css">',
        f'<link rel="icon" type="image/svg+xml" href="{PAGE_FILES_PATH}/icons/quest-chat.svg">',
        f'<script type="module" src="{PAGE_FILES_PATH}/js/main.js"></script>',
    ]
)
_LOADING_POLL_S = 1.0
_LOST = "Quest Chat cannot be reached. Is it still running?"


def build_page(assistant: Assistant, settings: AppSettings) -> Page:
    """The whole page for `app.web.server`."""
    with CheckedBlocks(
        title="Quest Chat", analytics_enabled=False, delete_cache=(3600, 86400), fill_width=True
    ) as blocks:
        with gr.Row(elem_id="page-header"):
            raw_html(
                f'<div class="brand"><img src="{PAGE_FILES_PATH}/icons/quest-chat.svg" alt="" width="30" height="30">'
                "<h1>Quest Chat</h1><span>long documents, on this machine</span></div>",
            )
            model_status = raw_html(status_markup(assistant), elem_id="model-status")
        conversation_id = gr.Textbox(visible=False)
        with gr.Row(elem_id="page-body"):
            live_panel = LivePanel(settings.page_size)
            with gr.Column(elem_id="side-column", scale=0, min_width=0):
                LibraryPanel.search_field()
                documents_panel = DocumentsPanel(assistant)
                library_panel = LibraryPanel(assistant, live_panel)
                settings_panel = SettingsPanel(settings)
            with gr.Column(elem_id="main-column", min_width=0), gr.Tabs(elem_id="main-tabs"):
                with gr.Tab("Chat", id="chat"), gr.Row(elem_id="chat-row"):
                    with gr.Column(elem_id="chat-column", min_width=0):
                        chat_panel = ChatPanel(assistant, settings_panel, documents_panel)
                    with gr.Column(elem_id="live-column", scale=0, min_width=0):
                        column_tabs()
                        document_view()
                        live_panel.panel.render()
                with gr.Tab("Compare", id="compare"):
                    compare_panel = ComparePanel(assistant, settings_panel)
        loading_timer = gr.Timer(_LOADING_POLL_S)

        documents_panel.connect(conversation_id)
        library_panel.connect(conversation_id, chat_panel.messages)
        chat_panel.connect(conversation_id)
        compare_panel.connect(conversation_id)

        def show_loading(opened_id: str) -> tuple:
            """Model state and meter while the model loads; the timer stops itself afterwards."""
            loading = assistant.status().stage in ("starting", "loading")
            meter = gr.skip()
            if not loading and opened_id:
                try:
                    meter = documents_panel.meter_markup(tab_conversation(assistant, opened_id))
                except UserFacingError:
                    # The tab's conversation is gone; its next action says so.
                    pass
            return status_markup(assistant), meter, gr.Timer(active=loading or not opened_id)

        hidden = {"show_progress": "hidden", "api_visibility": "private"}
        blocks.load(
            library_panel.open,
            conversation_id,
            [conversation_id, live_panel.panel],
            js=call_script("conversation", "wantedConversation"),
            **hidden,
        )
        blocks.load(None, js=call_script("question", "focusQuestion"))
        loading_timer.tick(
            show_loading, conversation_id, [model_status, documents_panel.meter, loading_timer], **hidden
        )
    # Handlers wait for the engine or a document, not for the processor; see `ENGINE_QUEUE` for those that answer.
    blocks.queue(default_concurrency_limit=16)
    return Page(blocks, quest_theme(), _HEAD)


def status_markup(assistant: Assistant) -> str:
    """The model's name and device, or how far loading has come, or why it failed; what not to expect of it."""
    status = assistant.status()
    if status.stage == "ready":
        window = f"{status.context_tokens:,}-token window" if status.context_tokens else ""
        text = " · ".join(filter(None, (status.model, status.device, window)))
    else:
        text = status.message or "Loading the model"
    note = ""
    if status.demonstration:
        command = html.escape(f"python launch.py {LARGER_MODEL}")
        note = f'<p class="model-note">{DEMONSTRATION_NOTE} <code>{command}</code></p>'
    chip = f'<div class="model-status" role="status" data-stage="{status.stage}"><i></i>'
    # Shown instead while the server is gone: then nobody is there to say so.
    chip += f'<span class="model-text">{html.escape(text)}</span><span class="model-lost">{_LOST}</span></div>'
    return chip + note
