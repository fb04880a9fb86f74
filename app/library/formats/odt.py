"""OpenDocument texts (.odt): one page for each chapter.

Tracked deletions and comments are left out, notes stand at the end of their chapter, text boxes after the paragraph
that they belong to. See OpenDocument 1.3, part 3, https://docs.oasis-open.org/office/OpenDocument/v1.3/.
"""

from collections.abc import Iterator
from pathlib import Path

from bs4 import Tag

from app.library.errors import UnsupportedFormatError
from app.library.formats.extracted_page import ExtractedPage
from app.library.formats.html import parse_html
from app.library.formats.line_forms import BULLET, letters, roman, row_line
from app.library.formats.mathml import formula_text
from app.library.limits import ReadLimits
from app.library.office.package import Element, OfficePackage, number_of, opened_package
from app.library.office.pages import TextBlock, pages_of

_DROPPED = frozenset(
    "tracked-changes annotation annotation-end hidden-text hidden-paragraph ruby-text forms soft-page-break "
    "sequence-decls variable-decls user-field-decls desc title event-listeners index-title-template"
    " table-of-content-source alphabetical-index-source meta-field-source".split()
)
_CELL_CHARACTERS = 1000
_MOST_SPACES = 1000
_WRITTEN = {"a": letters, "A": lambda number: letters(number).upper(), "i": roman, "I": lambda one: roman(one).upper()}


def read_pages(path: Path, password: str | None, limits: ReadLimits) -> Iterator[ExtractedPage]:
    """Read an OpenDocument text; see `office.pages.pages_of`.

    Args:
        path: the file.
        password: ignored.
        limits: `unpacked_bytes` bounds what comes out of the zip file.

    Yields:
        The pages that have text, in order.

    Raises:
        DamagedDocumentError, UnsupportedFormatError (a password), NoTextError, ReadLimitExceeded.
    """
    with opened_package(path, limits) as package:
        manifest = package.optional_xml("META-INF/manifest.xml")
        if manifest is not None and next(manifest.iter("encryption-data"), None) is not None:
            raise UnsupportedFormatError(
                f'"{path.name}" is protected with a password and cannot be opened here. Open it in its own program, '
                "save it without a password, and add that."
            )
        pages = pages_of(path, _Document(package).blocks())
    yield from pages


class _Document:
    """One document that is being read, from its beginning to its end."""

    def __init__(self, package: OfficePackage):
        self._package = package
        self._content = package.xml("content.xml")
        roots = [root for root in (package.optional_xml("styles.xml"), self._content) if root is not None]
        self._lists = {one.get("name", ""): one for root in roots for one in root.iter("list-style")}
        styles = [style for root in roots for style in root.iter("style")]
        self._page_breaks = {
            style.get("name", "")
            for style in styles
            if any(properties.get("break-before") == "page" for properties in style.iterfind("paragraph-properties"))
        }
        self._hidden = {
            style.get("name", "")
            for style in styles
            if any(properties.get("display") == "none" for properties in style.iterfind("text-properties"))
        }
        self._list_of = {style.get("name", ""): style.get("list-style-name", "") for style in styles}
        self._note_count = 0
        self._boxes: list[Element] = []
        self._referred: list[str] = []
        self._last_count: dict[str, int] = {}

    def blocks(self) -> list[TextBlock]:
        body = self._content.find("body/text")
        return [] if body is None else self._blocks_in(body)

    def _blocks_in(self, parent: Element) -> list[TextBlock]:
        blocks: list[TextBlock] = []
        for child in parent:
            if child.tag in ("p", "h"):
                blocks += self._paragraph(child)
            elif child.tag in ("list", "numbered-paragraph"):
                blocks += self._list(child, child.get("style-name", ""), 1)
            elif child.tag == "table":
                blocks += self._table(child)
            elif child.tag not in _DROPPED and child.get("display") != "none":
                blocks += self._blocks_in(child)
        return blocks

    def _paragraph(self, paragraph: Element, mark: str = "") -> list[TextBlock]:
        outer = self._boxes, self._referred
        self._boxes, self._referred = [], []
        style = paragraph.get("style-name", "")
        text = "" if style in self._hidden else self._text(paragraph)
        boxes, notes = self._boxes, self._referred
        self._boxes, self._referred = outer
        level = max(0, number_of(paragraph.get("outline-level"), 1)) if paragraph.tag == "h" else 0
        block = TextBlock(
            f"{mark} {text}" if mark else text, level, bool(mark) and not level, style in self._page_breaks, notes
        )
        return [block, *(boxed for box in boxes for boxed in self._blocks_in(box))]

    def _text(self, parent: Element) -> str:
        pieces = [parent.text or ""]
        for child in parent:
            tag = child.tag
            if tag == "s":
                pieces.append(" " * min(_MOST_SPACES, max(1, number_of(child.get("c"), 1))))
            elif tag == "tab":
                pieces.append("\t")
            elif tag == "line-break":
                pieces.append("\n")
            elif tag == "note":
                pieces.append(self._refer(child))
            elif tag == "text-box":
                self._boxes.append(child)
            elif tag == "object" and child.get("href"):
                pieces.append(self._formula(child.get("href", "")))
            elif tag == "span" and child.get("style-name") in self._hidden:
                pass
            elif tag not in _DROPPED:
                pieces.append(self._text(child))
            pieces.append(child.tail or "")
        return "".join(pieces)

    def _formula(self, name: str) -> str:
        name = f"{name.removeprefix('./')}/content.xml"
        if name not in self._package:
            return ""
        root = parse_html(self._package.read(name)).find(_is_formula)
        return "" if root is None else formula_text(root)

    def _refer(self, note: Element) -> str:
        body = note.find("note-body")
        self._note_count += 1
        number = self._note_count
        blocks = [] if body is None else self._blocks_in(body)
        self._referred.append(f"[{number}] {' '.join(' '.join(block.text.split()) for block in blocks)}")
        return f"[{number}]"

    def _list(self, parent: Element, style: str, level: int) -> list[TextBlock]:
        blocks: list[TextBlock] = []
        form = self._form(style, level)
        count = self._first_count(parent, form, style, level)
        for item in parent:
            if item.tag in ("p", "h"):
                # Headings stand in lists only to be numbered, and are written without their number.
                blocks += self._paragraph(item)
                continue
            if item.tag not in ("list-item", "list-header"):
                continue
            count = number_of(item.get("start-value"), count)
            mark = self._mark(form, count) if item.tag == "list-item" else ""
            for child in item:
                if child.tag == "list":
                    blocks += self._list(child, child.get("style-name", style), level + 1)
                elif child.tag == "h":
                    blocks += self._paragraph(child)
                    mark = ""
                elif child.tag == "p":
                    blocks += self._paragraph(child, mark)
                    mark = ""
            # An entry that holds nothing but a list is drawn as the list alone.
            count += item.tag == "list-item" and any(child.tag in ("p", "h") for child in item)
        self._last_count[f"{style} {level}"] = count
        return blocks

    def _first_count(self, parent: Element, form: Element | None, style: str, level: int) -> int:
        if parent.get("continue-numbering") == "true":
            return self._last_count.get(f"{style} {level}", 1)
        return number_of(None if form is None else form.get("start-value"), 1)

    def _form(self, style: str, level: int) -> Element | None:
        forms = [form for form in self._lists.get(style, ()) if 0 < number_of(form.get("level"), 0) <= level]
        return max(forms, key=lambda form: number_of(form.get("level"), 0), default=None)

    @staticmethod
    def _mark(form: Element | None, count: int) -> str:
        if form is None or form.tag != "list-level-style-number":
            return BULLET
        kind = form.get("num-format", "1")
        if not kind:
            return ""
        return f"{form.get('num-prefix', '')}{_WRITTEN.get(kind, str)(count)}{form.get('num-suffix', '')}"

    def _table(self, table: Element) -> list[TextBlock]:
        blocks: list[TextBlock] = []
        for row in _rows(table):
            cells = [cell for cell in row if cell.tag in ("table-cell", "covered-table-cell")]
            contents = [[] if cell.tag == "covered-table-cell" else self._blocks_in(cell) for cell in cells]
            texts = [" ".join(block.text for block in content if block.text.strip()) for content in contents]
            is_layout = len(cells) == 1 or any(cell.find(".//table") is not None for cell in cells)
            if is_layout or max(map(len, texts), default=0) > _CELL_CHARACTERS:
                blocks += [block for content in contents for block in content]
                continue
            notes = [note for content in contents for block in content for note in block.notes]
            blocks.append(TextBlock(row_line(texts), is_line=True, notes=notes))
        return blocks


def _is_formula(tag: Tag) -> bool:
    return tag.name.rpartition(":")[2] == "math"


def _rows(table: Element) -> Iterator[Element]:
    for child in table:
        if child.tag == "table-row":
            if child.get("visibility") != "collapse":
                yield child
        elif child.tag in ("table-rows", "table-header-rows", "table-row-group"):
            yield from _rows(child)
