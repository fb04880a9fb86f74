"""What the user is told of a document: that it is there already, what of its text is a guess, and what is missing.

Sentences only, for the page and for the terminal; where they stand is theirs to say.
"""

from collections.abc import Sequence

from app.library.document import Document

_NAMED_PAGES = 3
_NUMBER_CHARACTERS = 6


def addition_notes(document: Document, present: Sequence[Document]) -> list[str]:
    """What to say when a document has been added.

    Args:
        document: the one that was added.
        present: the conversation's documents before.

    Returns:
        Sentences; none if all is well.
    """
    name = document.shown_name
    if any(other.document_id == document.document_id for other in present):
        return [f"{name} is among the documents already and was not added again."]
    notes = []
    if document.assumed_encoding:
        notes.append(f"{name}: {encoding_note(document)}.")
    return notes + [f"In {name}, {note}." for note in page_notes(document)]


def encoding_note(document: Document) -> str:
    """What was assumed of a text's encoding: "encoding not certain, read as KOI8-R (Cyrillic)"; "" if it is."""
    encoding = document.assumed_encoding
    return f"encoding not certain, read as {encoding}" if encoding else ""


def page_notes(document: Document) -> list[str]:
    """Which pages have no text that could be read, or one that may be wrong; empty if there are none.

    Args:
        document: a document that was read.

    Returns:
        Clauses without an end, e.g. "page 2 is a picture: its text cannot be read". Of many pages a few are named.
        Those that were recognised in pictures are named too: their text is a guess.
    """
    notes = []
    pictures, unreadable = document.picture_pages, document.unreadable_pages
    if len(pictures) == 1:
        notes.append(f"{named_pages(pictures)} is a picture: its text cannot be read")
    elif pictures:
        notes.append(f"{len(pictures):,} pages are pictures: their text cannot be read ({named_pages(pictures)})")
    if garbled := document.garbled_pages:
        is_needed = "unreadable: text recognition (OCR) is needed"
        notes.append(
            f"the text layer of {named_pages(garbled)} is {is_needed}"
            if len(garbled) == 1
            else f"the text layers of {len(garbled):,} pages are {is_needed} ({named_pages(garbled)})"
        )
    if unreadable:
        notes.append(f"{_counted(len(unreadable))} unreadable ({named_pages(unreadable)})")
    if recognised := document.recognised_pages:
        was = "was recognised in a picture" if len(recognised) == 1 else "were recognised in pictures"
        notes.append(f"{named_pages(recognised)} {was} (OCR) and may have errors")
    return notes


def left_out_note(documents: Sequence[Document]) -> str:
    """What is not in context although the whole documents are.

    Args:
        documents: those in context.

    Returns:
        "1 page that is a picture", "2 pages that are pictures and 1 page that is unreadable"; "" if nothing is missing.
    """
    counts = (
        (sum(len(document.picture_pages) for document in documents), "that is a picture", "that are pictures"),
        (
            sum(len(document.unreadable_pages) + len(document.garbled_pages) for document in documents),
            "that is unreadable",
            "that are unreadable",
        ),
    )
    return " and ".join(f"{_counted(count)} {one if count == 1 else many}" for count, one, many in counts if count)


def _counted(pages: int) -> str:
    return f"{pages:,} page" if pages == 1 else f"{pages:,} pages"


def named_pages(labels: Sequence[str], most: int = _NAMED_PAGES) -> str:
    """Pages by their labels, `most` of them: "page 2", "pages 2 and 5", "pages 2, 5, 9 and 31 more"."""
    # A chapter's title is set off from the sentence around it.
    names = [
        label if len(label) <= _NUMBER_CHARACTERS and " " not in label else f'"{label}"' for label in labels[:most]
    ]
    more = len(labels) - len(names)
    *first, last = [*names, f"{more:,} more"] if more else names
    listed = f"{', '.join(first)} and {last}" if first else last
    return f"page {listed}" if len(labels) == 1 else f"pages {listed}"
