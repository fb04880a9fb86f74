"""Word documents (.docx, .docm, .dotx): one page for each chapter, as its last reader would see it printed.

Insertions that are tracked are text, deletions and hidden text are not; notes stand at the end of their chapter, text
boxes after the paragraph that they belong to, headers and footers nowhere. Macros are never looked at. See
ECMA-376, part 1, 17.
"""

from collections.abc import Iterator
from pathlib import Path

from app.library.formats.extracted_page import ExtractedPage
from app.library.formats.line_forms import row_line
from app.library.limits import ReadLimits
from app.library.office.docx_numbering import Numbering
from app.library.office.docx_styles import Styles
from app.library.office.math import formula_text
from app.library.office.package import Element, OfficePackage, is_on, number_of, opened_package, value_of
from app.library.office.pages import TextBlock, pages_of

# What is deleted, or was elsewhere, or tells how something looks.
_DROPPED = frozenset(("del", "moveFrom", "pPr", "rPr", "tblPr", "trPr", "tcPr", "sectPr", "instrText", "delText", "rt"))
_CELL_CHARACTERS = 1000
_TEXTS = {"tab": "\t", "cr": "\n", "noBreakHyphen": "-", "softHyphen": ""}


def read_pages(path: Path, password: str | None, limits: ReadLimits) -> Iterator[ExtractedPage]:
    """Read a Word document; see `office.pages.pages_of`.

    Args:
        path: the file.
        password: ignored.
        limits: `unpacked_bytes` bounds what comes out of the zip file.

    Yields:
        The pages that have text, in order.

    Raises:
        DamagedDocumentError, NoTextError, ReadLimitExceeded.
    """
    with opened_package(path, limits) as package:
        pages = pages_of(path, _Document(package).blocks())
    yield from pages


class _Document:
    """One document that is being read, from its beginning to its end."""

    def __init__(self, package: OfficePackage):
        self._name = package.related("", "officeDocument") or "word/document.xml"
        self._root = package.xml(self._name)
        self._styles = Styles(package.optional_xml(package.related(self._name, "styles")))
        self._numbering = Numbering(package.optional_xml(package.related(self._name, "numbering")))
        self._notes = {
            kind: _elements_by_id(package.optional_xml(package.related(self._name, f"{kind}s")), kind)
            for kind in ("footnote", "endnote")
        }
        self._note_count = 0
        # Of the paragraph that is being read: text boxes in it, notes that it refers to.
        self._boxes: list[Element] = []
        self._referred: list[str] = []
        # Whether the next paragraph begins a page, and whether this one ends one.
        self._begins_page = self._ends_page = False
        # Of a paragraph whose end is deleted, so that the next one goes on with it.
        self._carried = ""

    def blocks(self) -> list[TextBlock]:
        body = self._root.find("body")
        return [] if body is None else self._blocks_in(body)

    def _blocks_in(self, parent: Element) -> list[TextBlock]:
        blocks: list[TextBlock] = []
        # An explicit stack: content controls are nested in each other at will.
        stack = [iter(parent)]
        while stack:
            child = next(stack[-1], None)
            if child is None:
                stack.pop()
            elif child.tag == "p":
                blocks += self._paragraph(child)
            elif child.tag == "tbl":
                blocks += self._table(child)
            elif child.tag == "AlternateContent":
                stack.append(iter(_shown_alternative(child)))
            elif _is_text(child):
                stack.append(iter(child))
        return blocks

    def _paragraph(self, paragraph: Element) -> list[TextBlock]:
        properties = paragraph.find("pPr")
        style = value_of(properties, "pStyle") or self._styles.default_paragraph
        outer = self._boxes, self._referred
        self._boxes, self._referred = [], []
        text = self._text(paragraph, is_hidden=self._styles.is_hidden(style))
        boxes, notes = self._boxes, self._referred
        self._boxes, self._referred = outer
        mark = self._mark(properties, style)
        if is_on(None if properties is None else properties.find("rPr"), "del"):
            self._carried += text
            return []
        text, self._carried = self._carried + text, ""
        level = self._styles.outline_level(style, value_of(properties, "outlineLvl"))
        begins_page = self._begins_page or is_on(properties, "pageBreakBefore")
        # An empty paragraph hands its page break on.
        self._begins_page = self._ends_page or (begins_page and not text.strip())
        self._ends_page = False
        if not text.strip():
            mark = ""
        block = TextBlock(f"{mark} {text}" if mark else text, level, bool(mark) and not level, begins_page, notes)
        return [block, *(boxed for box in boxes for boxed in self._blocks_in(box))]

    def _mark(self, properties: Element | None, style: str) -> str:
        numbered = None if properties is None else properties.find("numPr")
        number_id, level = value_of(numbered, "numId"), value_of(numbered, "ilvl")
        if number_id is None:
            number_id, own_level = self._styles.numbering(style)
            level = own_level if level is None else level
        return self._numbering.next_mark(number_id or "", number_of(level, 0))

    def _text(self, parent: Element, is_hidden: bool) -> str:
        pieces: list[str] = []
        stack = [iter(parent)]
        while stack:
            child = next(stack[-1], None)
            if child is None:
                stack.pop()
                continue
            tag = child.tag
            if tag == "r":
                if not self._styles.is_hidden_run(child.find("rPr"), is_hidden):
                    stack.append(iter(child))
            elif tag == "t":
                pieces.append(child.text or "")
            elif tag == "br":
                if child.get("type") == "page" and any(map(str.strip, pieces)):
                    self._ends_page = True
                elif child.get("type") == "page":
                    self._begins_page = True
                pieces.append("\n")
            elif tag == "sym":
                # Others are pictures of a font.
                code = int(child.get("char", "0") or "0", 16)
                pieces.append(chr(code) if 0x20 <= code < 0xD800 else "")
            elif tag in _TEXTS:
                pieces.append(_TEXTS[tag])
            elif tag in ("footnoteReference", "endnoteReference"):
                pieces.append(self._refer(tag.removesuffix("Reference"), child.get("id", "")))
            elif tag == "txbxContent":
                self._boxes.append(child)
            elif tag == "oMath":
                pieces.append(formula_text(child))
            elif tag == "AlternateContent":
                stack.append(iter(_shown_alternative(child)))
            elif _is_text(child):
                stack.append(iter(child))
        return "".join(pieces)

    def _refer(self, kind: str, note_id: str) -> str:
        # Each once: a note may refer to itself.
        note = self._notes[kind].pop(note_id, None)
        if note is None:
            return ""
        self._note_count += 1
        number = self._note_count
        outer = self._carried, self._begins_page, self._ends_page
        self._carried = ""
        text = " ".join(" ".join(block.text.split()) for block in self._blocks_in(note))
        self._carried, self._begins_page, self._ends_page = outer
        self._referred.append(f"[{number}] {text}")
        return f"[{number}]"

    def _table(self, table: Element) -> list[TextBlock]:
        blocks: list[TextBlock] = []
        for row in _children(table, "tr"):
            properties = row.find("trPr")
            if properties is not None and (properties.find("del") is not None or is_on(properties, "hidden")):
                continue
            cells = list(_children(row, "tc"))
            contents = [self._blocks_in(cell) for cell in cells]
            texts = [" ".join(block.text for block in content if block.text.strip()) for content in contents]
            is_layout = len(cells) == 1 or any(next(cell.iter("tbl"), None) is not None for cell in cells)
            if is_layout or max(map(len, texts), default=0) > _CELL_CHARACTERS:
                # A page that is laid out by a table, or a box around a text.
                blocks += [block for content in contents for block in content]
                continue
            notes = [note for content in contents for block in content for note in block.notes]
            blocks.append(TextBlock(row_line(texts), is_line=True, notes=notes))
        return blocks


def _children(parent: Element, name: str) -> Iterator[Element]:
    """Children of a name, also in content controls and what else stands around them."""
    stack = [iter(parent)]
    while stack:
        child = next(stack[-1], None)
        if child is None:
            stack.pop()
        elif child.tag == name:
            yield child
        elif _is_text(child):
            stack.append(iter(child))


def _is_text(element: Element) -> bool:
    # A content control that nobody has filled in asks for its text.
    is_asking = element.tag == "sdt" and element.find("sdtPr/showingPlcHdr") is not None
    return element.tag not in _DROPPED and not is_asking


def _shown_alternative(alternatives: Element) -> Element | tuple[()]:
    choice = alternatives.find("Choice")
    return choice if choice is not None else alternatives.find("Fallback") or ()


def _elements_by_id(root: Element | None, name: str) -> dict[str, Element]:
    # Those with a type are the lines between text and notes.
    found = [] if root is None else root.findall(name)
    return {one.get("id", ""): one for one in found if one.get("type", "normal") == "normal"}
