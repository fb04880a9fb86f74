"""From the paragraphs of a word processor's document to document pages: one for each chapter.

Word processors keep no pages, only headings; what a reader looks for is the chapter. Knows nothing of file formats.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from app.library.errors import NoTextError
from app.library.formats.extracted_page import ExtractedPage
from app.library.formats.pagination import PAGE_CHARACTERS, shortened_title, split_into_pages
from app.library.formats.text_cleaning import clean_characters

# A chapter up to this length stays one page.
_CHAPTER_CHARACTERS = 2 * PAGE_CHARACTERS


@dataclass
class TextBlock:
    """A paragraph, a row of a table or an entry of a list.

    Attributes:
        text: what it says; may have several lines.
        level: 1 for headings of the first level; 0 if it is none.
        is_line: it belongs to a table or a list, and so close to the block before if that does, too.
        begins_page: the author begins a new page with it.
        notes: the notes that it refers to.
    """

    text: str
    level: int = 0
    is_line: bool = False
    begins_page: bool = False
    notes: list[str] = field(default_factory=list)


def pages_of(path: Path, blocks: Iterable[TextBlock]) -> list[ExtractedPage]:
    """Cut a document into pages, at the headings of the highest level that occurs more than once.

    Args:
        path: the file.
        blocks: of the whole document, in order.

    Returns:
        Pages that have text, labelled with their headings, "Title", "Title (2)", ...; what stands before the first
        heading, or all of a document without headings, as "1", "2", ... Notes stand at the end of the chapter that
        refers to them.

    Raises:
        NoTextError: if there are none.
    """
    pages = list(_pages_of(blocks))
    if not pages:
        raise NoTextError(
            f'"{path.name}" holds no text: it is empty, or shows pictures only. Of pictures, make a PDF, in which text '
            "can be recognised (OCR)."
        )
    return pages


def _pages_of(blocks: Iterable[TextBlock]) -> Iterator[ExtractedPage]:
    blocks = [block for block in blocks if block.text.strip()]
    split_level = _split_level(blocks)
    chapters: list[list[TextBlock]] = [[]]
    for block in blocks:
        # A part's title with nothing below it yet makes no page: its first chapter is on it.
        is_bare_part = all(0 < before.level < block.level for before in chapters[-1])
        if 0 < block.level <= split_level and not is_bare_part:
            chapters.append([])
        chapters[-1].append(block)
    done = 0
    for chapter in filter(None, chapters):
        label = _label(chapter, split_level)
        for part, text in enumerate(_split(_text_of(chapter, with_breaks=not split_level)), start=1):
            name = str(part) if not label else label if part == 1 else f"{label} ({part})"
            yield ExtractedPage(name, text, done + len(chapter), len(blocks))
        done += len(chapter)


def _label(chapter: Sequence[TextBlock], split_level: int) -> str:
    """The heading that a chapter begins with, the innermost of those that begin a page; "" if it has none."""
    leading = takewhile(lambda block: 0 < block.level <= split_level, chapter)
    titles = [title for block in leading if (title := shortened_title(block.text))]
    return titles[-1] if titles else ""


def _split_level(blocks: Sequence[TextBlock]) -> int:
    counts = Counter(block.level for block in blocks if block.level)
    several = [level for level, count in counts.items() if count > 1]
    return min(several or counts, default=0)


def _text_of(chapter: Sequence[TextBlock], with_breaks: bool) -> str:
    pieces: list[str] = []
    before: TextBlock | None = None
    for block in chapter:
        if before is not None:
            breaks = "\f" if with_breaks and block.begins_page else ""
            pieces.append(breaks or ("\n" if before.is_line and block.is_line else "\n\n"))
        pieces.append(block.text)
        before = block
    notes = [note for block in chapter for note in block.notes]
    return "".join(pieces) + "".join(f"\n{'' if index else chr(10)}{note}" for index, note in enumerate(notes))


def _split(text: str) -> list[str]:
    pages = [clean_characters(page) for page in text.split("\f")]
    text = "\f".join(page for page in pages if page)
    if "\f" not in text and len(text) <= _CHAPTER_CHARACTERS:
        return [text] if text else []
    return split_into_pages(text)
