"""The line below the question box: which model answers, how much it reads, how full its window is, and the settings.

Everything in it is told by others: the model's state comes from `status_markup`, the preset belongs to the settings,
the context bar follows the conversation (`ui.documents_panel`).
"""

import html

import gradio as gr

from app.chat.assistant import Assistant
from app.models.model_loader import DEMONSTRATION_NOTE, LARGER_MODEL
from ui.documents_panel import DocumentsPanel
from ui.raw_html import raw_html
from ui.settings_panel import SettingsPanel

_LOST = "Not connected"
_GEAR = (
    '<svg viewBox="0 0 20 20" width="18" height="18" aria-hidden="true"><path d="M3 6h7M14 6h3M3 14h3M10 14h7"/>'
    '<circle cx="12" cy="6" r="2"/><circle cx="8" cy="14" r="2"/></svg>'
)
_BUTTONS = (
    f'<button type="button" id="open-settings" aria-label="Settings" title="Settings" data-dialog="settings">{_GEAR}'
    '</button><button type="button" id="open-keys" aria-label="Keyboard" title="Keyboard (?)" data-dialog="keys">?'
    "</button>"
)


class QuestionLine:
    """Model, preset, context bar and the buttons of the dialogs.

    Args:
        assistant: tells how its model is doing.
        settings_panel: has the preset.
        documents_panel: has the context bar.
    """

    def __init__(self, assistant: Assistant, settings_panel: SettingsPanel, documents_panel: DocumentsPanel) -> None:
        with gr.Row(elem_id="question-line"):
            self.model_status = raw_html(status_markup(assistant), elem_id="model-status", js_on_load=None)
            settings_panel.preset.render()
            documents_panel.meter.render()
            raw_html(_BUTTONS, elem_id="question-buttons", js_on_load=None)


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
    chip = f'<div class="model-status" role="status" data-stage="{status.stage}" title="{html.escape(text)}"><i></i>'
    # Shown instead while the server is gone: then nobody is there to say so.
    chip += f'<span class="model-text">{html.escape(text)}</span><span class="model-lost">{_LOST}</span></div>'
    return f"<quest-model-status>{chip}{note}</quest-model-status>"
