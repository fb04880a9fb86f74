"""Puts the panels together: the library at the left, the conversation in the middle, the document and what the model
reads at the right.

The three zones and their widths are `assets/css/desk.css`; which are open is `assets/js/desk/desk.js`. Dialogs stand
beside the desk, so that all of it can be out of reach while one is open.

Each browser tab shows a conversation, whose id stands in a hidden field and in the tab's address
(`assets/js/chat/conversation.js`); a `gr.State` would hold it as well but makes Gradio keep one more connection open
per tab, and a browser allows six to a server.
"""

import gradio as gr

from app.chat.assistant import Assistant
from app.errors import UserFacingError
from app.settings import AppSettings
from app.web.page_head import imported_scripts
from app.web.server import ASSETS_FOLDER, PAGE_FILES_PATH, Page
from ui.chat.chat_panel import ChatPanel
from ui.chat.question_line import question_line
from ui.documents_panel import DocumentsPanel
from ui.library_panel import LibraryPanel
from ui.live_panel import LivePanel
from ui.page_script import call_script
from ui.raw_html import raw_html
from ui.settings_panel import SettingsPanel
from ui.side_panel import absent_note, document_view, live_strip, race_panel, side_tabs
from ui.tab_conversation import tab_conversation
from ui.theme import quest_theme
from ui.uploaded_files import CheckedBlocks

_STYLE_SHEETS = (
    "tokens.css",
    "page.css",
    "desk.css",
    "panels.css",
    "messages.css",
    "notices.css",
    "library.css",
    "reading.css",
    "race.css",
    "models.css",
    "model-picker.css",
)
_SCRIPT = "main.js"
_HEAD = "\n".join(
    [
        *(f'<link rel="stylesheet" href="{PAGE_FILES_PATH}/css/{name}">' for name in _STYLE_SHEETS),
        f'<link rel="icon" type="image/svg+xml" href="{PAGE_FILES_PATH}/icons/quest-chat.svg">',
        f'<script type="module" src="{PAGE_FILES_PATH}/js/{_SCRIPT}"></script>',
        *(
            f'<link rel="modulepreload" href="{PAGE_FILES_PATH}/js/{name}">'
            for name in imported_scripts(ASSETS_FOLDER / "js", _SCRIPT)
        ),
    ]
)
# Hides what needs the cache of our own engine, and tells it to the scripts.
_OTHER_ENGINE = (
    '<meta name="quest-engine" content="other">'
    f'<link rel="stylesheet" href="{PAGE_FILES_PATH}/css/other-engine.css">'
)
_BRAND = (
    f'<header class="brand"><img src="{PAGE_FILES_PATH}/icons/quest-chat.svg" alt="" width="26" height="26">'
    "<h1>Quest Chat</h1></header>"
    '<button type="button" id="new-chat" title="New chat">New chat</button>'
)
# What is drawn until the Gradio page is there, which then covers it: the same zones at the same places.
_FRAME = (
    f'<script src="{PAGE_FILES_PATH}/js/first.js"></script><div id="desk-frame" aria-hidden="true"><div>'
    f'<div class="brand"><img src="{PAGE_FILES_PATH}/icons/quest-chat.svg" alt="" width="26" height="26">'
    "<span>Quest Chat</span></div></div><div><p>Ask about the document</p></div><div></div></div>"
)
_CONNECTION_LINE = "<quest-connection-line hidden></quest-connection-line>"
_LOADING_POLL_S = 1.0


def build_page(assistant: Assistant, settings: AppSettings) -> Page:
    """The whole page for `app.web.server`."""
    with CheckedBlocks(
        title="Quest Chat", analytics_enabled=False, delete_cache=(3600, 86400), fill_width=True
    ) as blocks:
        conversation_id = gr.Textbox(visible=False)
        live_panel = LivePanel(settings.page_size)
        with gr.Column(elem_id="settings-dialog", min_width=0):
            settings_panel = SettingsPanel(settings)
        raw_html("<quest-keys></quest-keys>", js_on_load=None, elem_id="keys-dialog")
        raw_html("<quest-model-picker></quest-model-picker>", js_on_load=None, elem_id="model-picker")
        with gr.Row(elem_id="desk"):
            with gr.Column(elem_id="library-zone", scale=0, min_width=0):
                raw_html(_BRAND, js_on_load=None, elem_id="page-header")
                LibraryPanel.search_field()
                documents_panel = DocumentsPanel(assistant)
                library_panel = LibraryPanel(assistant, live_panel)
            with gr.Column(elem_id="chat-zone", min_width=0):
                raw_html("<quest-chat-title></quest-chat-title>", js_on_load=None, elem_id="chat-title")
                chat_panel = ChatPanel(assistant, settings_panel, documents_panel)
                live_strip()
                raw_html(_CONNECTION_LINE, js_on_load=None, elem_id="connection-line")
                with chat_panel.question_area:
                    question_line(assistant, settings_panel, documents_panel)
            with gr.Column(elem_id="side-zone", scale=0, min_width=0):
                side_tabs()
                document_view()
                with gr.Column(elem_id="reading-panel", min_width=0):
                    if settings.engine_url:
                        raw_html(absent_note("What the model reads"), js_on_load=None)
                    live_panel.panel.render()
                race_panel(is_absent=bool(settings.engine_url))
        loading_timer = gr.Timer(_LOADING_POLL_S)

        library_panel.connect(conversation_id)
        chat_panel.connect(conversation_id)

        def show_meter(opened_id: str) -> tuple:
            """The context bar once the model is there to count tokens; the timer stops itself afterwards."""
            loading = assistant.status().stage in ("starting", "loading")
            meter = gr.skip()
            if not loading and opened_id:
                try:
                    meter = documents_panel.meter_markup(tab_conversation(assistant, opened_id))
                except UserFacingError:
                    # The tab's conversation is gone; its next action says so.
                    pass
            return meter, gr.Timer(active=loading or not opened_id)

        hidden = {"show_progress": "hidden", "api_visibility": "private"}
        blocks.load(
            library_panel.open,
            conversation_id,
            [conversation_id, live_panel.panel],
            js=call_script("chat/conversation", "wantedConversation"),
            **hidden,
        )
        blocks.load(None, js=call_script("chat/question", "focusQuestion"))
        loading_timer.tick(show_meter, conversation_id, [documents_panel.meter, loading_timer], **hidden)
    # Handlers wait for a document, not for the processor.
    blocks.queue(default_concurrency_limit=16)
    head = _HEAD + (f"\n{_OTHER_ENGINE}" if settings.engine_url else "")
    return Page(blocks, quest_theme(), head, _FRAME)
