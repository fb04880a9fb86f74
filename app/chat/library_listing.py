"""What the page's lists show of the library and of the conversations, as JSON.

A page asks for it when its telemetry says that something has changed; nothing here is kept.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from app.chat.conversations.conversation import Conversation
from app.chat.prompt.document_tokens import TokenCount
from app.chat.sample_listing import sample_listing
from app.library.library_entry import LibraryEntry, LibraryHit

if TYPE_CHECKING:
    from app.chat.assistant import Assistant

# Of one that has documents and no question yet.
UNTITLED = "New chat"


def library_listing(assistant: Assistant, conversation: Conversation | None, search: str) -> dict[str, Any]:
    """All documents and conversations, or those that have the words.

    Args:
        assistant: what has them.
        conversation: for which the documents' states are told, None for none.
        search: words; a document has them in its name or text.

    Returns:
        documents: each with the fields of `LibraryEntry` and
            can_be_recognised: as `LibraryEntry` has it,
            tokens: a text, e.g. "6,310" or "about 13,700,000"; None while nobody has counted them for this model,
            kept_bytes: what models have kept of it,
            conversation_count: how many conversations have it,
            in_conversation, and reading: the fields of `ReadingState`, or None outside of the conversation,
            page_label, snippet: where the words were found; "" without a search, or if they are in the name alone.
            file_is_there: False if its file is gone from the data folder: its text is there still.
        samples: the books that come with the app and are not in the library; see `app.chat.sample_listing`.
        conversations: each with the fields of `ConversationSummary`, and answering.
    """
    search = search.strip()
    hits: dict[str, LibraryHit] = {}
    if search:
        for hit in assistant.library.search(search):
            # A page tells more than the name, which is in the list anyway.
            if hit.document_id not in hits or not hits[hit.document_id].snippet:
                hits[hit.document_id] = hit
    counts = assistant.conversations.document_counts()
    # Asked for once: a library may hold hundreds, and this is told several times a second while one is read.
    tokens, with_file = assistant.counted_tokens(), assistant.library.ids_with_file()
    return {
        "documents": [
            _document(assistant, entry, conversation, hits.get(entry.document_id), tokens.get(entry.document_id))
            | {
                "conversation_count": counts.get(entry.document_id, 0),
                "file_is_there": entry.state == "reading" or entry.document_id in with_file,
            }
            for entry in assistant.library.entries()
            if not search or entry.document_id in hits
        ],
        "samples": sample_listing(assistant, search),
        "conversations": [
            asdict(summary)
            | {"title": summary.title or UNTITLED, "answering": assistant.is_answering(summary.conversation_id)}
            for summary in assistant.conversation_summaries(search)
        ],
    }


def _document(
    assistant: Assistant,
    entry: LibraryEntry,
    conversation: Conversation | None,
    hit: LibraryHit | None,
    tokens: TokenCount | None,
) -> dict[str, Any]:
    document_id = entry.document_id
    is_here = conversation is not None and document_id in conversation.document_ids
    if tokens is None and is_here:
        # Others are not counted for being listed.
        tokens = assistant.document_tokens(document_id)
    # Not `asdict`, which copies every field of every document.
    return vars(entry) | {
        "can_be_recognised": entry.can_be_recognised,
        "tokens": None if tokens is None or entry.state != "read" else str(tokens),
        "kept_bytes": assistant.kept_bytes(document_id),
        "in_conversation": is_here,
        "reading": asdict(assistant.reading(document_id, conversation)) if is_here else None,
        "page_label": hit.page_label if hit else "",
        "snippet": hit.snippet if hit else "",
    }
