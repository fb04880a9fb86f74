"""Web pages: the text of headings, paragraphs, lists and tables, without navigation, scripts and what is hidden.

Nothing is fetched: pictures, frames and style sheets are ignored, but for what a page says that a picture shows.
"""

import codecs
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from bs4 import BeautifulSoup, NavigableString, Tag
from bs4.element import CData, PreformattedString

from app.library.errors import DamagedDocumentError, NoTextError
from app.library.formats.extracted_page import ExtractedPage
from app.library.formats.html_lines import Verbatim, take_apart_cells, write_out_items, write_out_pictures
from app.library.formats.line_forms import row_line
from app.library.formats.mathml import formula_text
from app.library.formats.pagination import split_into_pages
from app.library.formats.text_cleaning import clean_characters
from app.library.formats.text_encoding import DecodedText, decode_text, is_utf_8
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
_CELLS = ("td", "th")
# A longer cell is a column of a page that is laid out by a table.
_CELL_CHARACTERS = 1000
HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
# Unicode keeps these characters for a program's own use: no text has them.
_SECTION_MARK = "\ufdd0"
_SECTION = re.compile(f"{_SECTION_MARK}[0-9]+{_SECTION_MARK}")
_IS_FORMULA = re.compile(r"(\w+:)?math")
_HIDING_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_CHARSET = re.compile(rb"<(?:meta|\?xml)[^>]{0,200}?(?:charset|encoding)\s*=\s*[\"']?([\w.:-]{2,40})", re.IGNORECASE)
# What browsers take these for: larger encodings, which agree with them.
_READ_AS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "tis-620": "cp874",
}


def parse_html(data: bytes) -> BeautifulSoup:
    """Parse HTML or XHTML (and, well enough for an EPUB's own files, XML).

    Args:
        data: the file's bytes; see `decode_html`.

    Returns:
        The tree, with tag and attribute names in lower case.
    """
    return _parse(decode_html(data).text)


def _parse(markup: str) -> BeautifulSoup:
    with warnings.catch_warnings():
        # XHTML and an EPUB's package file are parsed as HTML on purpose: html.parser never fetches or expands entities.
        warnings.simplefilter("ignore")
        return BeautifulSoup(markup, "html.parser")


def decode_html(data: bytes) -> DecodedText:
    """Decode a web page: as UTF-8 if it is, else as a declaration in it says, else as its bytes tell.

    Args:
        data: the file's bytes.

    Raises:
        ValueError: the bytes are not text.
    """
    if is_utf_8(data):
        try:
            # ASCII in UTF-16 is UTF-8, too.
            return decode_text(data)
        except ValueError:
            return DecodedText(data.decode("utf-8-sig"))
    # A page that is not UTF-8 although it says so was saved in the encoding of its time and place.
    declared = _CHARSET.search(data[:4096])
    name = declared.group(1).decode("ascii").lower() if declared else "utf-8"
    try:
        codec = codecs.lookup(name).name
        # A declaration that can be read as ASCII is not in UTF-16.
        if not codec.startswith("utf"):
            return DecodedText(data.decode(_READ_AS.get(codec, codec), "replace"))
    except (LookupError, UnicodeError):
        # Unknown, or not an encoding of text.
        pass
    return decode_text(data)


def text_of(tree: Tag) -> str:
    """Take the readable text out of a parsed page; the tree is changed by it.

    Args:
        tree: a parsed page or a part of one.

    Returns:
        Cleaned text: headings and paragraphs apart by an empty line; list entries, with their bullets and numbers, and
        table rows, their cells apart by " | ", on lines of their own.
    """
    return "\n\n".join(text for _, text in sections_of(tree, ()) if text)


def line_of(tag: Tag) -> str:
    """The text of a heading or a link as one line, cleaned."""
    return " ".join(_clean(_collected(tag)).split())


def sections_of(tree: Tag, starts: Sequence[Tag]) -> list[tuple[int, str]]:
    """Like `text_of`, but cut where elements begin.

    Args:
        tree: a parsed page.
        starts: elements in it; what is inside of a heading begins with the heading.

    Returns:
        The index of the element that a section begins with, -1 for what stands before all of them, and the section's
        text, which may be empty. In the order of the page; elements that are not shown begin none.
    """
    for index, element in enumerate(starts):
        mark = Verbatim(f"{_SECTION_MARK}{index}{_SECTION_MARK}")
        (element.find_parent(HEADINGS) or element).insert_before(mark)
    for tag in tree.find_all(_is_dropped):
        # What was inside of one that is gone is gone, too.
        if not tag.decomposed:
            tag.decompose()
    for formula in tree.find_all(_IS_FORMULA):
        if not formula.decomposed and formula.parent is not None:
            formula.replace_with(Verbatim(formula_text(formula)))
    write_out_pictures(tree)
    write_out_items(tree)
    _write_out_rows(tree)
    before, *marked = _collected(tree).split(_SECTION_MARK)
    indexes, texts = [-1, *map(int, marked[::2])], [before, *marked[1::2]]
    return [(index, _clean(text)) for index, text in zip(indexes, texts, strict=True)]


def _is_dropped(tag: Tag) -> bool:
    if tag.name in _DROPPED:
        return True
    if not tag.attrs or tag.name in ("html", "body"):
        return False
    is_hidden = "hidden" in tag.attrs or _HIDING_STYLE.search(str(tag.get("style", "")))
    # The notes of a book are hidden until they are asked for.
    return bool(is_hidden) and "note" not in str(tag.get("epub:type", ""))


def _write_out_rows(tree: Tag) -> None:
    """Make a line of each table row, but not of those that only lay out a page."""
    take_apart_cells(tree)
    layout_rows = {id(table.find_parent("tr")) for table in tree.find_all("table")}
    for row in tree.find_all("tr"):
        cells = row.find_all(_CELLS, recursive=False)
        if len(cells) < 2 or id(row) in layout_rows:
            continue
        collected = [_collected(cell) for cell in cells]
        texts = [_clean(_SECTION.sub("", text)) for text in collected]
        if max(map(len, texts)) <= _CELL_CHARACTERS:
            marks = "".join(mark.group() for text in collected for mark in _SECTION.finditer(text))
            row.clear()
            row.append(Verbatim(marks + row_line(texts)))


def _clean(collected: str) -> str:
    text = _LINE_MARKS.sub(lambda mark: "\n\n" if "\n\n" in mark.group() else "\n", collected)
    return clean_characters(text.replace("\u00ad", ""))


def _collected(tree: Tag) -> str:
    pieces: list[str] = []
    # An explicit stack: pages nested a thousand levels deep exist.
    stack: list[tuple[Tag | NavigableString | str, bool]] = [(tree, False)]
    while stack:
        node, is_verbatim = stack.pop()
        if isinstance(node, Tag):
            is_verbatim = is_verbatim or node.name == "pre"
            before, after = _surroundings(node.name)
            pieces.append(before)
            stack.append((Verbatim(after), True))
            stack.extend((child, is_verbatim) for child in reversed(node.contents))
        elif isinstance(node, Verbatim):
            pieces.append(node)
        elif isinstance(node, CData) or not isinstance(node, PreformattedString):
            # Other preformatted strings are comments, declarations and processing instructions.
            text = node.replace(_SECTION_MARK, "")
            pieces.append(text if is_verbatim else re.sub(r"\s+", " ", text))
    return "".join(pieces)


def _surroundings(tag_name: str) -> tuple[str, str]:
    if tag_name in _LINES:
        return (_LINE_MARK, _LINE_MARK)
    if tag_name == "br":
        return ("", "\n")
    if tag_name == "q":
        return ("“", "”")
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
        DamagedDocumentError: the content is not text.
    """
    try:
        decoded = decode_html(path.read_bytes())
    except ValueError:
        raise DamagedDocumentError(
            f'"{path.name}" does not contain text but binary data. Correct its name, or convert it to a PDF.'
        ) from None
    pages = split_into_pages(text_of(_parse(decoded.text)))
    if not pages:
        raise NoTextError(
            f'"{path.name}" holds no text: the page may draw its text by a script. '
            "Open it in a browser, print it to a PDF file, and add that."
        )
    for number, page in enumerate(pages, start=1):
        yield ExtractedPage(str(number), page, number, len(pages), assumed_encoding=decoded.assumed_encoding)
