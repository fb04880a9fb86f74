"""The context meter: how the window is filled before the next question."""

import html
from collections.abc import Sequence
from typing import Protocol

from app.chat.prompt.plan import ContextUsage
from app.library import left_out_note

_TITLE = "Tokens in the window, and what fills it"


class PagedText(Protocol):
    """What the meter needs to know of a document."""

    picture_pages: Sequence[str]
    unreadable_pages: Sequence[str]
    garbled_pages: Sequence[str]


def meter_markup(usage: ContextUsage, documents: Sequence[PagedText], window_note: str = "") -> str:
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
    taken_percent = 100 * taken_tokens / max(1, usage.context_tokens)
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
        f'<div class="meter" data-state="{state}"><button type="button" class="context-line" title="{_TITLE}">'
        f'<span class="context-share"><span style="width:{taken_percent:.1f}%"></span></span>'
        f'<span class="context-words">{taken_tokens:,} of {context_tokens:,}</span>'
        f'<span class="context-percent">{taken_percent:.0f} %</span></button>'
        '<div class="context-details" role="group" aria-label="What fills the window">'
        f'<div class="meter-head"><span>Context window</span><span>{context_tokens:,} tokens</span></div>'
        f'<div class="meter-bar" role="img" aria-label="{document_part:,} tokens of document, {conversation_tokens:,} '
        f'of conversation, {free_tokens:,} free">{bar}</div>'
        f'<div class="meter-figures">{figures}</div><p class="meter-note">{note}</p>{about_window}</div></div>'
    )
