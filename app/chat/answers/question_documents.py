"""Which of a conversation's documents a question is asked of, while some of them are still being read.

One that the model has read is used, and so is a short one, for it is read in a moment. What is still being read for the
first time is left out and named, unless nothing else is there: then the question waits. Knows nothing of queues or of
how documents are read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from app.chat.answers.answer import DocumentReading
from app.errors import UserFacingError
from app.library.library_entry import LibraryEntry

# A chunk of a prefill on the CPU: reading it takes a second or two.
QUICKLY_READ_TOKENS = 512
# Whoever drops a file and asks at once means that file: its text is waited for so long.
JUST_ADDED_S = 2.0


@dataclass(frozen=True)
class QuestionDocuments:
    """The documents of one question.

    Args:
        document_ids: of those it is asked of, in the conversation's order.
        left_out: names of those that are still being read.
        unusable: what is wrong with the others, a sentence each.
    """

    document_ids: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    unusable: tuple[str, ...] = ()


def choose_documents(
    entries: Sequence[LibraryEntry],
    read_ids: Collection[str],
    is_quickly_read: Callable[[str], bool],
    waits_for_all: bool,
    now: float,
) -> QuestionDocuments | DocumentReading:
    """Choose, or tell what the question waits for.

    Args:
        entries: the conversation's documents.
        read_ids: ids of those that the model has read in it.
        is_quickly_read: whether a document is short; asked of those whose text is there.
        waits_for_all: wait for every text, and leave none out.
        now: seconds since 1970.

    Raises:
        UserFacingError: if there are documents, and none of them can be read.
    """
    pending = [entry for entry in entries if entry.state == "reading"]
    ready = [entry for entry in entries if entry.state == "read"]
    unusable = [entry for entry in entries if entry.state in ("locked", "failed")]
    awaited = pending if waits_for_all or not ready else [one for one in pending if now - one.added_at < JUST_ADDED_S]
    if awaited:
        return DocumentReading(awaited[0].name, awaited[0].progress)
    if unusable and not ready:
        raise UserFacingError(unusable[0].message)
    if waits_for_all:
        chosen = ready
    else:
        chosen = [entry for entry in ready if entry.document_id in read_ids] or ready[:1]
        chosen = [entry for entry in ready if entry in chosen or is_quickly_read(entry.document_id)]
    return QuestionDocuments(
        tuple(entry.document_id for entry in chosen),
        tuple(entry.name for entry in entries if entry in pending or (entry in ready and entry not in chosen)),
        tuple(entry.message for entry in unusable),
    )
