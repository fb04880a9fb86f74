"""What stands in a chat before its first question: what can be done now, and questions to begin with.

Three states: no document, one that is being read, one that can be asked about; and what to do about one that cannot be
read. Markup only.
"""

import html
from collections.abc import Sequence
from typing import Any, Literal, Protocol

from ui.chat.message_markup import html_content
from ui.wording import listed

StartState = Literal["none", "reading", "unreadable", "ready"]
_MOST_NAMES = 3
_DEMONSTRATION = (
    '<p class="start-model">The model that comes with Quest Chat is a demonstration and often wrong: trust the '
    'passages, not its words. <button type="button" data-dialog="models">Choose a larger one</button></p>'
)


class ListedDocument(Protocol):
    """What must be known of a document here: see `app.library.library_entry.LibraryEntry`."""

    name: str
    state: str
    message: str


def start_state(entries: Sequence[ListedDocument]) -> StartState:
    """The state of a chat with these documents."""
    states = {entry.state for entry in entries}
    if not states:
        return "none"
    if "read" in states:
        return "ready"
    return "reading" if "reading" in states else "unreadable"


def start_messages(
    entries: Sequence[ListedDocument], questions: Sequence[str] = (), is_demonstration: bool = False
) -> list[dict[str, Any]]:
    """The one message of a chat without a turn.

    Args:
        entries: its documents.
        questions: to begin with.
        is_demonstration: whether the model is too small to be relied on, which is said.
    """
    state = start_state(entries)
    heading, text = _wording(state, entries)
    markup = f'<div class="start" data-state="{state}"><h2>{html.escape(heading)}</h2><p>{html.escape(text)}</p>'
    if state in ("reading", "ready"):
        # How far it is comes with the library's list (assets/js/chat/start.js).
        markup += "<quest-reading-line></quest-reading-line>"
    if state == "ready" and questions:
        buttons = "".join(f'<button type="button" data-ask>{html.escape(question)}</button>' for question in questions)
        markup += f'<div class="start-questions" role="group" aria-label="Example questions">{buttons}</div>'
    if is_demonstration:
        markup += _DEMONSTRATION
    return [{"role": "assistant", "content": html_content(f"{markup}</div>")}]


def _wording(state: StartState, entries: Sequence[ListedDocument]) -> tuple[str, str]:
    if state == "none":
        return (
            "What do you want to read?",
            "Add a document, or take one from the library. It is read once, as a whole; each sentence of an answer "
            "then shows the passage that it comes from.",
        )
    if state == "reading":
        names = [entry.name for entry in entries if entry.state == "reading"]
        return f"Reading {_named(names)}", "Ask when you like: a question is answered as soon as the text is there."
    if state == "unreadable":
        entry = next(entry for entry in entries if entry.state not in ("read", "reading"))
        what = "is locked" if entry.state == "locked" else "could not be read"
        return f"{entry.name} {what}", f"{entry.message} Its row in the library has what can be done.".strip()
    names = [entry.name for entry in entries if entry.state == "read"]
    return f"Ask about {_named(names)}", "Each sentence of an answer shows the passage that it comes from."


def _named(names: Sequence[str]) -> str:
    if len(names) <= _MOST_NAMES:
        return listed(names)
    return f"{', '.join(names[:_MOST_NAMES])} and {len(names) - _MOST_NAMES} more"
