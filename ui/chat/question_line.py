"""The line below the question box: which model answers, how much it reads, how full its window is, and the settings.

Everything in it is told by others: the model by `assets/js/models/model-status.js`, the preset belongs to the settings,
the context bar follows the conversation (`ui.documents_panel`).
"""

import html

import gradio as gr

from app.chat.assistant import Assistant
from ui.documents_panel import DocumentsPanel
from ui.raw_html import raw_html
from ui.settings_panel import SettingsPanel

_GEAR = (
    '<svg viewBox="0 0 20 20" width="18" height="18" aria-hidden="true"><path d="M3 6h7M14 6h3M3 14h3M10 14h7"/>'
    '<circle cx="12" cy="6" r="2"/><circle cx="8" cy="14" r="2"/></svg>'
)
_BUTTONS = (
    f'<button type="button" id="open-settings" aria-label="Settings" title="Settings" data-dialog="settings">{_GEAR}'
    '</button><button type="button" id="open-keys" aria-label="Keyboard" title="Keyboard (?)" data-dialog="keys">?'
    "</button>"
)


def question_line(assistant: Assistant, settings_panel: SettingsPanel, documents_panel: DocumentsPanel) -> None:
    """Put the line here.

    Args:
        assistant: tells how its model is doing.
        settings_panel: has the preset.
        documents_panel: has the context bar.
    """
    with gr.Row(elem_id="question-line"):
        raw_html(status_markup(assistant), elem_id="model-status", js_on_load=None)
        settings_panel.preset.render()
        documents_panel.meter.render()
        raw_html(_BUTTONS, elem_id="question-buttons", js_on_load=None)


def status_markup(assistant: Assistant) -> str:
    """How the model is doing as the page is opened; from then on the element asks by itself."""
    status = assistant.status()
    text = status.model if status.stage == "ready" else status.message or "Loading the model"
    chip = f'<div class="model-status" data-stage="{status.stage}"><i></i>'
    return f'<quest-model-status>{chip}<span class="model-text">{html.escape(text)}</span></div></quest-model-status>'
