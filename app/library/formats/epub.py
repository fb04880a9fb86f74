"""EPUB: the chapters of the book's spine, in reading order, each labelled with its title.

Reads the container itself (a zip file with an index in XML): the standard library and Beautiful Soup are all it takes.
Structure: EPUB 3.3, https://www.w3.org/TR/epub-33/ (also reads EPUB 2). A page is what an entry of the contents leads
to, wherever in a file that is; a file without an entry belongs to the entry before. Books under digital rights
management are refused; fonts that are merely obfuscated do not matter.
"""

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from bs4 import Tag

from app.library.errors import DamagedDocumentError, NoTextError, UnsupportedFormatError
from app.library.formats.epub_contents import ContentsEntry, is_named, read_contents, resolve
from app.library.formats.extracted_page import ExtractedPage
from app.library.formats.html import HEADINGS, line_of, parse_html, sections_of
from app.library.formats.pagination import PAGE_CHARACTERS, shortened_title, split_into_pages
from app.library.formats.zip_archive import ARCHIVE_ERRORS, ZipArchive
from app.library.limits import ReadLimits

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_FONT_OBFUSCATION = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
_PICTURES = ("img", "image", "svg", "object", "canvas")
# A chapter up to this length stays one page.
_CHAPTER_CHARACTERS = 2 * PAGE_CHARACTERS
# The title of a part, before its first chapter, makes no page of its own; so much may stand beside it.
_BESIDE_TITLE_CHARACTERS = 40
# Entries further inside begin a new page only if the present one is as full.
_CHAPTER_DEPTH = 2
_SECTION_CHARACTERS = 1000


@dataclass
class _Section:
    """What begins at one place of a file: the entry that leads there, the level of its heading, its text."""

    entry: ContentsEntry | None
    title: str
    level: int
    text: str


class _Labels:
    """Names pages one after the other: "Title", "Title (2)", ...; "" while no chapter has begun."""

    def __init__(self) -> None:
        self.level = 0
        self._title = ""
        self._parts = 0

    def begin(self, title: str, level: int) -> None:
        self._title, self._parts, self.level = title, 0, level

    def has_begun(self) -> bool:
        return bool(self._title)

    def next(self) -> str:
        self._parts += 1
        return self._title if self._parts == 1 else f"{self._title} ({self._parts})"


def read_pages(path: Path, password: str | None, limits: ReadLimits) -> Iterator[ExtractedPage]:
    """Read an EPUB, a chapter at a time; a long chapter becomes several pages, "Title", "Title (2)", ...

    Args:
        path: the file.
        password: ignored.
        limits: `unpacked_bytes` bounds what comes out of the zip file.

    Yields:
        The pages that have text, in reading order; a file that fails as one page with `readable=False`, and one that
        is a picture, unless it is the cover, as one with `is_picture=True`.

    Raises:
        DamagedDocumentError, UnsupportedFormatError (rights management), NoTextError, ReadLimitExceeded.
    """
    try:
        with zipfile.ZipFile(path) as zip_file:
            archive = ZipArchive(path, zip_file, limits.unpacked_bytes)
            _refuse_rights_management(path, archive)
            yield from _read_spine(path, archive)
    except ARCHIVE_ERRORS as error:
        raise _damaged(path) from error


def _read_spine(path: Path, archive: ZipArchive) -> Iterator[ExtractedPage]:
    package_name = _package_name(path, archive)
    package = parse_html(archive.read(package_name))
    names = _spine(package, package_name)
    if not names:
        raise _damaged(path)
    entries_of: dict[str, list[ContentsEntry]] = {}
    for entry in read_contents(package, package_name, archive):
        entries_of.setdefault(entry.file_name.lower(), []).append(entry)
    labels, readable_files, page_count = _Labels(), 0, 0
    for number, (name, is_picture) in enumerate(names, start=1):
        entries = entries_of.get(name.lower(), [])
        try:
            sections = [] if is_picture else None
            if sections is None:
                tree = parse_html(archive.read(name))
                is_picture = tree.find(_PICTURES) is not None
                sections = _sections(tree, entries, has_contents=bool(entries_of))
        except ARCHIVE_ERRORS:
            yield ExtractedPage(entries[0].title if entries else str(number), "", number, len(names), readable=False)
            continue
        readable_files += 1
        for section in sections:
            _begin(labels, section, number)
            for text in _split_chapter(section.text):
                page_count += 1
                yield ExtractedPage(labels.next(), text, number, len(names))
        # Every other book begins with the picture of its cover, which nobody misses.
        if not sections and is_picture and number > 1:
            if entries or not labels.has_begun():
                labels.begin(entries[0].title if entries else str(number), 0)
            yield ExtractedPage(labels.next(), "", number, len(names), is_picture=True)
    if not readable_files:
        raise _damaged(path)
    if not page_count:
        raise NoTextError(f'"{path.name}" holds no text: its pages are pictures. Get an edition with text.')


def _begin(labels: _Labels, section: _Section, number: int) -> None:
    """Take up the name of a section that has one; what has none goes on with the chapter before."""
    is_chapter = section.title and (section.level <= max(1, labels.level) or not labels.has_begun())
    if section.entry is not None:
        labels.begin(section.entry.title, section.level)
    elif is_chapter or not labels.has_begun():
        labels.begin(section.title or str(number), section.level)


def _sections(tree: Tag, entries: Sequence[ContentsEntry], has_contents: bool) -> list[_Section]:
    """Cut a file where entries of the contents lead to; in a book without contents, at its chapters' headings."""
    first: ContentsEntry | None = None
    places: dict[int, tuple[Tag, ContentsEntry | None]] = {}
    by_name = _named_elements(tree) if any(entry.fragment for entry in entries) else {}
    for entry in entries:
        element = by_name.get(entry.fragment)
        if element is None:
            first = _better(first, entry)
        else:
            element = element.find_parent(HEADINGS) or element
            places[id(element)] = (element, _better(places.get(id(element), (element, None))[1], entry))
    if not has_contents:
        places = {id(heading): (heading, None) for heading in _chapter_headings(tree)}
    starts = list(places.values())
    # Before the tree is changed.
    headings = [_heading(tree), *(_heading(element) for element, _ in starts)]
    sections = []
    for index, text in sections_of(tree, [element for element, _ in starts]):
        title, level = headings[index + 1]
        # A heading further down is that of a part of the section.
        if not " ".join(text[:80].split()).startswith(title.removesuffix("…")):
            title, level = "", 0
        sections.append(_Section(first if index < 0 else starts[index][1], title, level, text))
    return _joined([section for section in sections if section.text])


def _better(known: ContentsEntry | None, entry: ContentsEntry) -> ContentsEntry:
    # Of a part and its first chapter, which begin at one place, the chapter.
    return entry if known is None or entry.depth > known.depth else known


def _joined(sections: list[_Section]) -> list[_Section]:
    """Put together what is too little for a page: a part's title with its first chapter, short sections."""
    joined: list[_Section] = []
    for section in sections:
        before, entry = joined[-1] if joined else None, section.entry
        if before is None or entry is None or before.entry is None:
            joined.append(section)
            continue
        is_bare_title = len(before.text) <= len(before.entry.title) + _BESIDE_TITLE_CHARACTERS
        if is_bare_title and entry.depth > before.entry.depth:
            section.text = f"{before.text}\n\n{section.text}"
            joined[-1] = section
        elif entry.depth > _CHAPTER_DEPTH and len(before.text) < _SECTION_CHARACTERS:
            before.text += f"\n\n{section.text}"
        else:
            joined.append(section)
    return joined


def _named_elements(tree: Tag) -> dict[str, Tag]:
    named: dict[str, Tag] = {}
    for tag in tree.find_all(True):
        for name in (tag.get("id"), tag.get("name") if tag.name == "a" else None):
            if name:
                named.setdefault(str(name), tag)
    return named


def _chapter_headings(tree: Tag) -> list[Tag]:
    """The headings of the highest level, if there are several; one names the whole file."""
    headings = [heading for heading in tree.find_all(HEADINGS) if heading.get_text(strip=True)]
    top = min((heading.name for heading in headings), default="")
    chapters = [heading for heading in headings if heading.name == top]
    return chapters if len(chapters) > 1 else []


def _heading(place: Tag) -> tuple[str, int]:
    """Title and level of the heading at an element, in it or next after it."""
    heading = place if place.name in HEADINGS else place.find(HEADINGS) or place.find_next(HEADINGS)
    while heading is not None and not (title := shortened_title(line_of(heading))):
        heading = heading.find_next(HEADINGS)
    return (title, int(heading.name[1])) if heading is not None else ("", 0)


def _refuse_rights_management(path: Path, archive: ZipArchive) -> None:
    if _ENCRYPTION not in archive:
        return
    for method in parse_html(archive.read(_ENCRYPTION)).find_all(is_named("encrypteddata")):
        algorithm = method.find(is_named("encryptionmethod"))
        if algorithm is None or algorithm.get("algorithm") not in _FONT_OBFUSCATION:
            raise UnsupportedFormatError(
                f'"{path.name}" is protected by digital rights management (DRM): only the reader of its shop can open '
                "it. Get an edition without DRM."
            )


def _package_name(path: Path, archive: ZipArchive) -> str:
    if _CONTAINER in archive:
        root = parse_html(archive.read(_CONTAINER)).find(is_named("rootfile"))
        name = unquote(str(root.get("full-path", ""))) if root else ""
        if name in archive:
            return name
    raise _damaged(path)


def _spine(package: Tag, package_name: str) -> list[tuple[str, bool]]:
    """The files that are read, in order, and whether each is a picture."""
    items = {item.get("id"): item for item in package.find_all(is_named("item"))}
    wanted = [items.get(reference.get("idref")) for reference in package.find_all(is_named("itemref"))]
    if not any(wanted):
        # A broken spine; the manifest of most books has their order, too.
        wanted = [item for item in items.values() if "nav" not in str(item.get("properties", "")).split()]
    names: dict[str, bool] = {}
    for item in wanted:
        # What no reader can show has another form that all can.
        for _ in range(len(items)):
            if item is None or _is_text(item) or item.get("fallback") not in items:
                break
            item = items[item.get("fallback")]
        if item is not None:
            is_picture = str(item.get("media-type", "")).startswith("image/")
            name, _ = resolve(package_name, item.get("href"))
            if name and (is_picture or _is_text(item)):
                # A spine that names a chapter twice would count its text twice.
                names.setdefault(name, is_picture)
    return list(names.items())


def _is_text(item: Tag) -> bool:
    return "html" in str(item.get("media-type", "html"))


def _split_chapter(text: str) -> list[str]:
    if len(text) <= _CHAPTER_CHARACTERS:
        return [text] if text else []
    return split_into_pages(text)


def _damaged(path: Path) -> DamagedDocumentError:
    return DamagedDocumentError(
        f'"{path.name}" is damaged and cannot be read as an EPUB book. It may be only partly downloaded: get it again.'
    )
