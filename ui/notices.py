"""Turn the app's exceptions into messages beside what they speak of.

Gradio carries a message to the browser as a toast; it names its place, and `assets/js/desk/notices.js` moves it there.
"""

import html
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import gradio as gr

from app.errors import explain
from ui.raw_html import raw_html

Place = Literal["question", "documents", "library"]


def notice_line(place: Place) -> gr.HTML:
    """Where the messages of a place appear; read out at once by screen readers."""
    return raw_html(f'<p class="notice" id="notice-at-{place}" role="alert"></p>', elem_classes="notice-line")


def user_error(message: str, place: Place = "question") -> gr.Error:
    """The error to raise for `message`, which may quote file names."""
    return gr.Error(_marked(message, place), duration=None, print_exception=False)


def warn(message: str, place: Place = "question") -> None:
    """Show a hint that stops nothing."""
    gr.Warning(_marked(message, place), duration=None)


@contextmanager
def shown_to_user(place: Place = "question") -> Iterator[None]:
    """Inside, any exception becomes a `gr.Error` with a sentence; Gradio would show an empty box."""
    try:
        yield
    except gr.Error:
        raise
    except Exception as error:
        raise user_error(explain(error, "This").message, place) from error


def _marked(message: str, place: Place) -> str:
    # Gradio takes a message for HTML.
    return f'<span class="notice-for-{place}">{html.escape(message)}</span>'
