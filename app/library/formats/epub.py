"""EPUB: the chapters of the book's spine, in reading order, each labelled with its title.

Reads the container itself (a zip file with an index in XML): the standard library and Beautiful Soup are all it takes.
Structure: EPUB 3.3, https://www.w3.org/TR/epub-33/ (also reads EPUB 2). Books under digital rights management are
refused; fonts that are merely obfuscated do not matter.
"""

import posixpath
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import Tag

from app.library.errors import DamagedDocumentError, NoTextError, ReadLimitExceeded, UnsupportedFormatError
from app.library.formats.extracted_page import ExtractedPage
from app.library.formats.html import parse_html, text_of
from app.library.formats.pagination import PAGE_CHARACTERS, split_into_pages
from app.library.formats.text_cleaning import clean_characters
from app.library.limits import MEBIBYTE, ReadLimits

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_FONT_OBFUSCATION = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
_MAX_ENTRIES = 50_000
_PICTURES = ("img", "image", "svg", "object", "canvas")
_TITLE_CHARACTERS = 60
# A chapter up to this length stays one page.
_CHAPTER_CHARACTERS = 2 * PAGE_CHARACTERS
# ValueError: a chapter that is not text.
_READ_ERRORS = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError, NotImplementedError, RuntimeError, ValueError
)


class _Archive:
    """The zip file, which gives out no more bytes in all than it is allowed to."""

    def __init__(self, archive: zipfile.ZipFile, allowed_bytes: int):
        self._archive = archive
        self._allowed_bytes = self._left_bytes = allowed_bytes
        # Books made on other systems disagree with their own index about upper and lower case.
        self._entries = {entry.filename.lower(): entry for entry in archive.infolist()}

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._entries

    def read(self, name: str) -> bytes:
        with self._archive.open(self._entries[name.lower()]) as file:
            # The size in the zip's index may lie: what counts is what comes out.
            data = file.read(self._left_bytes + 1)
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            raise ReadLimitExceeded(
                f'"{Path(self._archive.filename or "").name}" unpacks to more data than the '
                f"{self._allowed_bytes / MEBIBYTE:,.1f} MiB of text that are read. Split it into parts, unless it is "
                "small: then it is damaged, or made to do harm."
            )
        return data


def read_pages(path: Path, password: str | None, limits: ReadLimits) -> Iterator[ExtractedPage]:
    """Read an EPUB, a chapter at a time; a long chapter becomes several pages, "Title", "Title (2)", ...

    Args:
        path: the file.
        password: ignored.
        limits: `unpacked_bytes` bounds what comes out of the zip file.

    Yields:
        The pages that have text, in reading order; a chapter that fails as one page with `readable=False`, and one that
        is a picture, unless it is the cover, as one with `is_picture=True`.

    Raises:
        DamagedDocumentError, UnsupportedFormatError (rights management), NoTextError, ReadLimitExceeded.
    """
    try:
        with zipfile.ZipFile(path) as zip_file:
            if len(zip_file.infolist()) > _MAX_ENTRIES:
                raise ReadLimitExceeded(
                    f'"{path.name}" holds more than {_MAX_ENTRIES:,} files, too many for a book. Split it into parts.'
                )
            archive = _Archive(zip_file, limits.unpacked_bytes)
            _refuse_rights_management(path, archive)
            yield from _read_spine(path, archive)
    except _READ_ERRORS as error:
        raise _damaged(path) from error


def _read_spine(path: Path, archive: _Archive) -> Iterator[ExtractedPage]:
    package_name = _package_name(path, archive)
    package = parse_html(archive.read(package_name))
    chapters = _chapter_names(package, package_name)
    if not chapters:
        raise _damaged(path)
    titles = _titles_in_contents(package, package_name, archive)
    readable_chapters = page_count = 0
    for number, name in enumerate(chapters, start=1):
        try:
            chapter = parse_html(archive.read(name))
        except _READ_ERRORS:
            yield ExtractedPage(titles.get(name, str(number)), "", number, len(chapters), readable=False)
            continue
        readable_chapters += 1
        label = titles.get(name) or _heading(chapter) or str(number)
        has_picture = chapter.find(_PICTURES) is not None
        page_count_before = page_count
        for part, text in enumerate(_split_chapter(text_of(chapter)), start=1):
            page_count += 1
            yield ExtractedPage(label if part == 1 else f"{label} ({part})", text, number, len(chapters))
        # Every other book begins with the picture of its cover, which nobody misses.
        if page_count == page_count_before and has_picture and number > 1:
            yield ExtractedPage(label, "", number, len(chapters), is_picture=True)
    if not readable_chapters:
        raise _damaged(path)
    if not page_count:
        raise NoTextError(f'"{path.name}" holds no text: its pages are pictures. Get an edition with text.')


def _refuse_rights_management(path: Path, archive: _Archive) -> None:
    if _ENCRYPTION not in archive:
        return
    for method in parse_html(archive.read(_ENCRYPTION)).find_all(_is_named("encrypteddata")):
        algorithm = method.find(_is_named("encryptionmethod"))
        if algorithm is None or algorithm.get("algorithm") not in _FONT_OBFUSCATION:
            raise UnsupportedFormatError(
                f'"{path.name}" is protected by digital rights management (DRM): only the reader of its shop can open '
                "it. Get an edition without DRM."
            )


def _package_name(path: Path, archive: _Archive) -> str:
    if _CONTAINER in archive:
        root = parse_html(archive.read(_CONTAINER)).find(_is_named("rootfile"))
        name = unquote(str(root.get("full-path", ""))) if root else ""
        if name in archive:
            return name
    raise _damaged(path)


def _chapter_names(package: Tag, package_name: str) -> list[str]:
    items = {item.get("id"): item for item in package.find_all(_is_named("item"))}
    names = []
    for reference in package.find_all(_is_named("itemref")):
        item = items.get(reference.get("idref"))
        if item and "html" in str(item.get("media-type", "html")):
            names.append(_resolve(package_name, item.get("href")))
    # A spine that names a chapter twice would count its text twice.
    return list(dict.fromkeys(name for name in names if name))


def _titles_in_contents(package: Tag, package_name: str, archive: _Archive) -> dict[str, str]:
    titles: dict[str, str] = {}
    for item in package.find_all(_is_named("item")):
        is_navigation = "nav" in str(item.get("properties", "")).split()
        is_ncx = "ncx" in str(item.get("media-type", ""))
        if not (is_navigation or is_ncx):
            continue
        contents_name = _resolve(package_name, item.get("href"))
        try:
            contents = parse_html(archive.read(contents_name))
        except _READ_ERRORS:
            continue
        if is_navigation:
            entries = [(link.get("href"), link.get_text()) for link in contents.find_all("a")]
        else:
            entries = [_ncx_entry(point) for point in contents.find_all(_is_named("navpoint"))]
        for href, title in entries:
            name, title = _resolve(contents_name, href), clean_characters(title).replace("\n", " ")
            # The first entry that leads into a file is its chapter; later ones are sections of it.
            if name and 0 < len(title) <= _TITLE_CHARACTERS:
                titles.setdefault(name, title)
    return titles


def _ncx_entry(point: Tag) -> tuple[str | None, str]:
    content, text = point.find(_is_named("content")), point.find(_is_named("text"))
    return (content.get("src") if content else None, text.get_text() if text else "")


def _heading(chapter: Tag) -> str | None:
    for heading in chapter.find_all(["h1", "h2", "h3"]):
        title = clean_characters(heading.get_text(" ")).replace("\n", " ")
        if title:
            return title if len(title) <= _TITLE_CHARACTERS else None
    return None


def _split_chapter(text: str) -> list[str]:
    if len(text) <= _CHAPTER_CHARACTERS:
        return [text] if text else []
    return split_into_pages(text)


def _is_named(local_name: str):
    # The XML files may prefix their names with any namespace: opf:item, enc:EncryptedData.
    return lambda tag: tag.name.rpartition(":")[2] == local_name


def _resolve(base_name: str, href: object) -> str | None:
    relative = unquote(urlsplit(str(href)).path) if href else ""
    return posixpath.normpath(posixpath.join(posixpath.dirname(base_name), relative)) if relative else None


def _damaged(path: Path) -> DamagedDocumentError:
    return DamagedDocumentError(
        f'"{path.name}" is damaged and cannot be read as an EPUB book. It may be only partly downloaded: get it again.'
    )
