"""Where words stand in one document's text: as a phrase, whatever the case, the accents and the line breaks."""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from app.library import Document, DocumentPage

MOST_HITS = 1000
_MOST_WORD_CHARACTERS = 300
_BEFORE_HIT_CHARACTERS = 60
_SNIPPET_CHARACTERS = 160
# People type straight quotes and one kind of hyphen.
_TYPED = {"‘": "'", "’": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"'} | dict.fromkeys("‐‑‒–—−", "-")


@dataclass(frozen=True)
class DocumentHit:
    """A place in a document that has the words.

    Args:
        page_index, page_label: its document page.
        start_char, end_char: where it stands in that page's text, end excluded.
        snippet: the text around it, on one line.
    """

    page_index: int
    page_label: str
    start_char: int
    end_char: int
    snippet: str


class DocumentSearch:
    """Searches documents, and keeps the last one ready: people type letter by letter. Safe from any thread."""

    def __init__(self) -> None:
        self._last: tuple[Document | None, Sequence[str]] = None, ()
        self._lock = threading.Lock()

    def search(self, document: Document, words: str, limit: int) -> tuple[list[DocumentHit], bool]:
        """Find words in a document.

        Args:
            document: its text is there.
            words: searched for as one phrase, which may begin or end within a word; "" finds nothing.
            limit: hits at most, up to `MOST_HITS`.

        Returns:
            The first hits, in the order of the document, and whether there are more.
        """
        phrase = _phrase(words)
        if phrase is None:
            return [], False
        limit = min(max(1, limit), MOST_HITS)
        hits: list[DocumentHit] = []
        for page, folded in zip(document.document_pages, self._folded_pages(document), strict=True):
            for match in phrase.finditer(folded):
                if len(hits) == limit:
                    return hits, True
                hits.append(_hit(page, match.start(), match.end()))
        return hits, False

    def forget(self, document_id: str) -> None:
        """Keep nothing of a document."""
        with self._lock:
            known, _ = self._last
            if known is not None and known.document_id == document_id:
                self._last = None, ()

    def _folded_pages(self, document: Document) -> Sequence[str]:
        with self._lock:
            known, folded_pages = self._last
        if known is document:
            return folded_pages
        folded_pages = [folded(page.text) for page in document.document_pages]
        with self._lock:
            self._last = document, folded_pages
        return folded_pages


def folded(text: str) -> str:
    """A text without case and accents, and as long as before."""
    return text.lower() if text.isascii() else text.translate(_FOLDING)


class _Folding(dict):
    """What each character is folded to, found when it is first met."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        character = _TYPED.get(character, character)
        bare = unicodedata.normalize("NFD", character)[0].lower()
        self[code] = bare if len(bare) == 1 else character
        return self[code]


_FOLDING = _Folding()


def _phrase(words: str) -> re.Pattern[str] | None:
    parts = folded(unicodedata.normalize("NFC", words[:_MOST_WORD_CHARACTERS])).split()
    return re.compile(r"\s+".join(map(re.escape, parts))) if parts else None


def _hit(page: DocumentPage, start: int, end: int) -> DocumentHit:
    first = max(0, start - _BEFORE_HIT_CHARACTERS)
    last = min(len(page.text), max(end, first + _SNIPPET_CHARACTERS))
    before, after = page.text[first:start], page.text[end:last]
    # Not from within a word, nor to within one, unless it has no end in sight.
    if first and (cut := re.search(r"\s", before)):
        before = before[cut.end() :]
    if last < len(page.text) and (cut := re.search(r"\s\S*\Z", after)):
        after = after[: cut.start()]
    shown = " ".join(f"{before}{page.text[start:end]}{after}".split())
    snippet = f"{'…' if first else ''}{shown}{'…' if last < len(page.text) else ''}"
    return DocumentHit(page.index, page.page_label, start, end, snippet)
