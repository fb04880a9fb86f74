"""Turn the app's exceptions into what Gradio shows in the corner of the page."""

import html
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from app.errors import explain

# Gradio's own ten seconds are short for a sentence that says what to do.
_SHOWN_S = 20


def user_error(message: str) -> gr.Error:
    """The error to raise for `message`, which may quote file names: Gradio renders it as HTML, so it is escaped."""
    return gr.Error(html.escape(message), duration=_SHOWN_S, print_exception=False)


def warn(message: str) -> None:
    """Show a hint that stops nothing."""
    gr.Warning(html.escape(message), duration=_SHOWN_S)


@contextmanager
def shown_to_user() -> Iterator[None]:
    """Inside, any exception becomes a `gr.Error` with a sentence; Gradio would show an empty box."""
    try:
        yield
    except gr.Error:
        raise
    except Exception as error:
        raise user_error(explain(error, "This").message) from error
