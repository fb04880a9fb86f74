"""An EPUB's table of contents: which places of which files its entries lead to.

Reads EPUB 3's navigation document and EPUB 2's NCX; see https://www.w3.org/TR/epub-33/#sec-nav. Knows nothing of the
chapters themselves.
"""

import posixpath
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from bs4 import Tag

from app.library.formats.html import line_of, parse_html
from app.library.formats.pagination import shortened_title
from app.library.formats.zip_archive import ARCHIVE_ERRORS, ZipArchive


@dataclass(frozen=True)
class ContentsEntry:
    """One entry.

    Attributes:
        file_name: the file in the archive that it leads into.
        fragment: the id of the element in it that it leads to; "" for the beginning.
        title: what it says.
        depth: 1 for the outermost entries.
    """

    file_name: str
    fragment: str
    title: str
    depth: int


def read_contents(package: Tag, package_name: str, archive: ZipArchive) -> list[ContentsEntry]:
    """The entries of the book's contents in their order; of two tables of contents the one with more places.

    Args:
        package: the parsed package file.
        package_name: its name in the archive, which others are relative to.
        archive: the book.
    """
    tables: list[list[ContentsEntry]] = [[]]
    for item in package.find_all(is_named("item")):
        is_navigation = "nav" in str(item.get("properties", "")).split()
        is_ncx = "ncx" in str(item.get("media-type", ""))
        name, _ = resolve(package_name, item.get("href"))
        if not name or not (is_navigation or is_ncx):
            continue
        try:
            contents = parse_html(archive.read(name))
        except ARCHIVE_ERRORS:
            continue
        raw = _navigation_entries(contents) if is_navigation else _ncx_entries(contents)
        entries = [_entry(name, *values) for values in raw]
        tables.append([entry for entry in entries if entry is not None and entry.file_name in archive])
    # The first of those that lead to as many places: a navigation document comes first in most books.
    return max(tables, key=lambda table: len({(entry.file_name, entry.fragment) for entry in table}))


def _navigation_entries(contents: Tag) -> list[tuple[object, str, int]]:
    """Of the contents proper: the printed pages and the landmarks are lists of links, too."""
    tables = contents.find_all("nav")
    wanted = [table for table in tables if "toc" in str(table.get("epub:type", "")).split()]
    wanted = wanted or [table for table in tables if not table.get("epub:type")][:1] or ([] if tables else [contents])
    return [(link.get("href"), line_of(link), _depth(link, "li")) for nav in wanted for link in nav.find_all("a")]


def _ncx_entries(contents: Tag) -> list[tuple[object, str, int]]:
    entries = []
    for point in contents.find_all(is_named("navpoint")):
        content, text = point.find(is_named("content")), point.find(is_named("text"))
        if content and text:
            entries.append((content.get("src"), line_of(text), _depth(point, point.name) + 1))
    return entries


def _depth(tag: Tag, parent_name: str) -> int:
    return sum(parent.name == parent_name for parent in tag.parents)


def _entry(contents_name: str, href: object, title: str, depth: int) -> ContentsEntry | None:
    name, fragment = resolve(contents_name, href)
    title = shortened_title(title)
    return ContentsEntry(name, fragment, title, max(1, depth)) if name and title else None


def is_named(local_name: str):
    """A filter for tags of a name, whatever namespace it is prefixed with: opf:item, enc:EncryptedData."""
    return lambda tag: tag.name.rpartition(":")[2] == local_name


def resolve(base_name: str, href: object) -> tuple[str, str]:
    """Where a link leads: a file's name in the archive, "" for none, and a fragment, "" for its beginning."""
    parts = urlsplit(str(href or "").strip())
    relative = unquote(parts.path)
    if parts.scheme or not relative:
        return "", ""
    name = posixpath.normpath(posixpath.join(posixpath.dirname(base_name), relative))
    return name.lstrip("/"), unquote(parts.fragment)
