"""What the user is told of the passages that stood for a document longer than the window.

Clauses only, for the page and for the terminal; how passages are found belongs to `app.library.passages`.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.chat.answers.answer import AnswerReport, PassagesReport
from app.chat.prompt.document_tokens import TokenCount
from app.library import named_pages

_NAMED_PAGES = 8
_NAMED_WORDS = 8


def passage_notes(report: AnswerReport) -> list[str]:
    """How much of the documents the model had, from where, and what the search for it found.

    Args:
        report: of an answer.

    Returns:
        Two or more clauses without an end; none if the whole documents were in context.
    """
    passages, document = report.passages, report.document
    if passages is None:
        return []
    text_tokens = TokenCount(document.tokens, document.tokens_are_exact)
    count = "1 passage" if passages.passages == 1 else f"{passages.passages:,} passages"
    notes = [
        f"the text is longer than the window: {document.tokens_in_context:,} of {text_tokens} tokens were in context, "
        f"{count} from {_places(passages)}"
    ]
    added = passages.added
    if added is not None and added.kind == "overview":
        notes.append("the question is about the whole, so outline, beginning and a spread of the text were read")
    else:
        notes.append(_search_note(passages))
    if passages.searched_for:
        notes.append(f"the question is in another language than the text; searched for: {passages.searched_for}")
    if added is not None and not added.begins_anew:
        new = len(added.places)
        notes.append(
            f"{new:,} of the passages {'is' if new == 1 else 'are'} new, the others are those of earlier questions"
        )
    return notes


def _places(passages: PassagesReport) -> str:
    labels: dict[str, list[str]] = {}
    for page in passages.pages:
        labels.setdefault(page.document, []).append(page.page_label)
    if len(labels) == 1:
        return named_pages(*labels.values(), most=_NAMED_PAGES)
    return ", ".join(f"{name} ({named_pages(pages)})" for name, pages in labels.items())


def _search_note(passages: PassagesReport) -> str:
    found, missing = passages.found_words, passages.missing_words
    several = len({page.document for page in passages.pages}) > 1
    documents = "documents" if several else "document"
    beginning = "their beginnings were read" if several else "its beginning was read"
    if passages.added is not None and not passages.added.begins_anew:
        beginning = "the passages of earlier questions were read"
    if not found and not missing:
        return f"the question has no words to search the {documents} for, so {beginning}"
    if not found:
        return f"none of the question's words occur in the {documents}, so {beginning}"
    if not missing:
        return f"all of the question's words occur in the {documents}: {_named_words(found)}"
    have = "have" if several else "has"
    return f"of the question's words, the {documents} {have} {_named_words(found)}, but not {_named_words(missing)}"


def _named_words(words: Sequence[str]) -> str:
    named = ", ".join(words[:_NAMED_WORDS])
    return f"{named} and {len(words) - _NAMED_WORDS:,} more" if len(words) > _NAMED_WORDS else named
