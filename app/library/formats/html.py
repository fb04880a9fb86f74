"""Web pages: the text of headings, paragraphs, lists and tables, without navigation and scripts.

Nothing is fetched: pictures, frames and style sheets are ignored.
"""

import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from bs4 import BeautifulSoup, NavigableString, Tag
from bs4.element import PreformattedString

from app.library.errors import NoTextError
from app.library.formats.extracted_page import ExtractedPage
from app.library.formats.pagination import split_into_pages
from app.library.formats.plain_text import decode_text
from app.library.formats.text_cleaning import clean_characters
from app.library.limits import ReadLimits

# Not `head` and `form`: a page that leaves out `</head>`, or is one large form, would be lost.
_DROPPED = (
    "title script style nav noscript template iframe object svg button select textarea datalist audio video".split()
)
_BLOCKS = frozenset(
    "address article aside blockquote body center details div dl fieldset figcaption figure footer h1 h2 h3 h4 h5 h6"
    " header hr legend main ol p pre section summary table ul".split()
)
# A list or a table reads as lines, not as paragraphs. Unlike blocks, lines that end and begin at once break once.
_LINES = frozenset(("li", "tr", "dt", "dd", "caption"))
_LINE_MARK = "\x1e"
_LINE_MARKS = re.compile(rf"[ \n]*{_LINE_MARK}[ \n{_LINE_MARK}]*")
_CELLS = frozenset(("td", "th"))
_CHARSET = re.compile(rb"<(?:meta|\?xml)[^>]{0,200}?(?:charset|encoding)\s*=\s*[\"']?([\w.:-]{2,40})", re.IGNORECASE)


def parse_html(data: bytes) -> BeautifulSoup:
    """Parse HTML or XHTML (and, well enough for an EPUB's own files, XML).

    Args:
        data: the file's bytes; UTF-8, or else as a declaration in them says, or else Windows-1252.

    Returns:
        The tree, with tag and attribute names in lower case.
    """
    with warnings.catch_warnings():
        # XHTML and an EPUB's package file are parsed as HTML on purpose: html.parser never fetches or expands entities.
        warnings.simplefilter("ignore")
        return BeautifulSoup(_decode(data), "html.parser")


def _decode(data: bytes) -> str:
    declared = _CHARSET.search(data[:4096])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        if declared:
            try:
                return data.decode(declared.group(1).decode("ascii"), "replace")
            except LookupError:
                pass
    return decode_text(data)


def text_of(tree: Tag) -> str:
    """Take the readable text out of a parsed page; the tree is changed by it.

    Args:
        tree: a parsed page or a part of one.

    Returns:
        Cleaned text: headings and paragraphs apart by an empty line, list entries and table rows on lines of their own.
    """
    for tag in tree.find_all(_DROPPED):
        tag.decompose()
    pieces: list[str] = []
    _collect(tree, pieces)
    marked = "".join(pieces).replace("\u00ad", "")
    return clean_characters(_LINE_MARKS.sub(lambda mark: "\n\n" if "\n\n" in mark.group() else "\n", marked))


def _collect(tree: Tag, pieces: list[str]) -> None:
    # An explicit stack: pages nested a thousand levels deep exist.
    stack: list[tuple[Tag | NavigableString | str, bool]] = [(tree, False)]
    while stack:
        node, is_verbatim = stack.pop()
        if isinstance(node, Tag):
            is_verbatim = is_verbatim or node.name == "pre"
            before, after = _surroundings(node.name)
            pieces.append(before)
            stack.append((after, True))
            stack.extend((child, is_verbatim) for child in reversed(node.contents))
        elif not isinstance(node, PreformattedString):
            # Preformatted strings are comments, declarations and processing instructions.
            pieces.append(str(node) if is_verbatim else re.sub(r"\s+", " ", node))


def _surroundings(tag_name: str) -> tuple[str, str]:
    if tag_name in _LINES:
        return (_LINE_MARK, _LINE_MARK)
    if tag_name == "br":
        return ("", "\n")
    if tag_name in _CELLS:
        return ("", " ")
    if tag_name in _BLOCKS:
        return ("\n\n", "\n\n")
    return ("", "")


def read_pages(path: Path, password: str | None, limits: ReadLimits) -> Iterator[ExtractedPage]:
    """Read a web page as pages labelled "1", "2", ...

    Args:
        path: the file.
        password: ignored.
        limits: ignored; the caller counts pages and characters.

    Yields:
        The pages in order.

    Raises:
        NoTextError: the page shows no text.
    """
    pages = split_into_pages(text_of(parse_html(path.read_bytes())))
    if not pages:
        raise NoTextError(
            f'"{path.name}" holds no text: the page may draw its text by a script. '
            "Open it in a browser, print it to a PDF file, and add that."
        )
    for number, page in enumerate(pages, start=1):
        yield ExtractedPage(str(number), page, number, len(pages))
