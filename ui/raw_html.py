"""HTML that is styled by our own sheets alone."""

from typing import Any

import gradio as gr


def raw_html(value: str = "", **options: Any) -> gr.HTML:
    """A `gr.HTML` without Gradio's styles for running text.

    Args:
        value: markup; whatever it quotes must be escaped.
        options: as for `gr.HTML`.
    """
    return gr.HTML(value, apply_default_css=False, **options)
