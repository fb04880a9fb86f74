"""Cut text without pages of its own into document pages of readable size, and name pages by their titles.

Knows nothing of file formats; what counts as a heading is Markdown's `#` and the "Chapter" of plain text books.
"""

import re

from app.library.formats.text_cleaning import clean_characters

PAGE_CHARACTERS = 3000
_TITLE_CHARACTERS = 60
# A heading starts a new page if the present one is at least this full; a chapter's title alone makes no page.
_HEADING_BREAK_CHARACTERS = 1000
# A paragraph up to this length stays whole; a longer one is cut between sentences, or between words, or anywhere.
_PARAGRAPH_CHARACTERS = 4500

_PARAGRAPH_BREAK = re.compile(r"\n[ \t]*\n")
_HEADING = re.compile(
    r"#{1,6} \S|(?:chapter|book|part|section|act|scene|letter|canto|stave)\b[^\n]{0,60}$", re.IGNORECASE
)


def split_into_pages(text: str, page_characters: int = PAGE_CHARACTERS) -> list[str]:
    """Cut text at form feeds if it has any, else at paragraphs near every `page_characters`.

    Args:
        text: cleaned text, in which form feeds (if any) mark the ends of pages.
        page_characters: the size to aim at; pages are rarely more than half as long again.

    Returns:
        The pages in order, without empty ones; no characters but blanks between them are lost.
    """
    if "\f" in text:
        pages = [page.strip("\n") for page in text.split("\f")]
        return [part for page in pages if page.strip() for part in _split_long(page, 4 * page_characters)]
    return _split_at_paragraphs(text, page_characters)


def _split_long(page: str, longest_characters: int) -> list[str]:
    # A book with two form feeds in all would otherwise be three pages.
    return [page] if len(page) <= longest_characters else _split_at_paragraphs(page, PAGE_CHARACTERS)


def _split_at_paragraphs(text: str, page_characters: int) -> list[str]:
    pages: list[str] = []
    start = end = 0
    for paragraph_start, paragraph_end in _paragraphs(text):
        filled = end - start
        is_full = filled and paragraph_end - start > page_characters
        is_heading = filled >= _HEADING_BREAK_CHARACTERS and _HEADING.match(text, paragraph_start, paragraph_end)
        if is_full or is_heading:
            pages.append(text[start:end])
            start = paragraph_start
        end = paragraph_end
    pages.append(text[start:end])
    return [page.strip("\n") for page in pages if page.strip()]


def _paragraphs(text: str) -> list[tuple[int, int]]:
    bounds = []
    start = 0
    for match in _PARAGRAPH_BREAK.finditer(text):
        bounds.append((start, match.start()))
        start = match.end()
    bounds.append((start, len(text)))
    return [
        piece for start, end in bounds if text[start:end].strip() for piece in _pieces_of_paragraph(text, start, end)
    ]


def _pieces_of_paragraph(text: str, start: int, end: int) -> list[tuple[int, int]]:
    pieces = []
    while end - start > _PARAGRAPH_CHARACTERS:
        cut = _last_cut(text, start + PAGE_CHARACTERS // 2, start + PAGE_CHARACTERS)
        pieces.append((start, cut))
        start = cut
    pieces.append((start, end))
    return pieces


def _last_cut(text: str, earliest: int, latest: int) -> int:
    for pattern in (r"\n", r"[.!?…][\"'”’)]*\s", r"[。！？]", r"\s"):
        cuts = [match.end() for match in re.finditer(pattern, text[earliest:latest])]
        if cuts:
            return earliest + cuts[-1]
    return latest


def shortened_title(title: str) -> str:
    """A title as the name of a page: one line, and of a long one its beginning; "" if it says nothing."""
    title = " ".join(clean_characters(title).split())
    if len(title) > _TITLE_CHARACTERS:
        title = f"{title[:_TITLE_CHARACTERS].rsplit(' ', 1)[0].rstrip(' ,;:–—-')}…"
    return title if any(map(str.isalnum, title)) else ""
