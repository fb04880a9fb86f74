"""Office documents (Word, PowerPoint, OpenDocument) as packages: XML parts in a zip file, related to each other.

Written over the standard library: the packages for these formats refuse files with macros, templates and ISO's strict
form, and leave out notes, text boxes and tracked changes, which would have to be read from the XML beside them. Names
of elements and attributes lose their namespaces, which the strict form spells otherwise; a link's `r:id` becomes
`rel:id`. Structure: ECMA-376, https://ecma-international.org/publications-and-standards/standards/ecma-376/.
"""

import posixpath
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

from app.library.errors import DamagedDocumentError
from app.library.formats.zip_archive import ARCHIVE_ERRORS, ZipArchive
from app.library.limits import ReadLimits

Element = ElementTree.Element
# More than the formats have; a hostile file may invent its own.
_NAMES = 4096
_FALSE = ("0", "false", "off", "none")


class OfficePackage:
    """An open document.

    Args:
        path: its name in messages.
        archive: its zip file.
    """

    def __init__(self, path: Path, archive: ZipArchive):
        self.path = path
        self._archive = archive

    def __contains__(self, name: str) -> bool:
        return name in self._archive

    def xml(self, name: str) -> Element:
        """The root of a part.

        Raises:
            KeyError: there is no such part.
            DamagedDocumentError: it is no XML, or declares entities, which no office program writes.
        """
        data = self._archive.read(name)
        parser = ElementTree.XMLParser(target=_PlainNames())
        try:
            parser.feed(data)
            return parser.close()
        except _DoctypeFound:
            raise DamagedDocumentError(
                f'"{self.path.name}" declares entities of its own, as no office program does: it may be made to do '
                "harm. Get it from somebody you trust, or print it to a PDF file and add that."
            ) from None
        except ElementTree.ParseError as error:
            raise damaged(self.path) from error

    def read(self, name: str) -> bytes:
        """The bytes of a part; raises one of `ARCHIVE_ERRORS`."""
        return self._archive.read(name)

    def optional_xml(self, name: str | None) -> Element | None:
        """The root of a part that a document can be read without; None if it is missing or damaged."""
        if name is None or name not in self:
            return None
        try:
            return self.xml(name)
        except (*ARCHIVE_ERRORS, DamagedDocumentError):
            return None

    def relations(self, name: str) -> dict[str, tuple[str, str]]:
        """What a part ("" for the package) is related to: kind, as "footnotes", and name of each part by its id."""
        folder, file_name = posixpath.split(name)
        root = self.optional_xml(posixpath.join(folder, "_rels", f"{file_name}.rels"))
        found = {}
        for one in [] if root is None else root.iter("Relationship"):
            if one.get("TargetMode") != "External":
                target = posixpath.normpath(posixpath.join("/", folder, unquote(one.get("Target", "")))).lstrip("/")
                found[one.get("Id", "")] = (one.get("Type", "").rpartition("/")[2], target)
        return found

    def related(self, name: str, kind: str) -> str | None:
        """The name of the first part of a kind that a part is related to; None if there is none."""
        return next((target for found, target in self.relations(name).values() if found == kind), None)


@contextmanager
def opened_package(path: Path, limits: ReadLimits) -> Iterator[OfficePackage]:
    """Open a document.

    Args:
        path: the file.
        limits: `unpacked_bytes` bounds what comes out of it.

    Raises:
        DamagedDocumentError: it is no zip file, or a part that is needed is missing or damaged.
        ReadLimitExceeded: more came out than is allowed.
    """
    try:
        with zipfile.ZipFile(path) as zip_file:
            yield OfficePackage(path, ZipArchive(path, zip_file, limits.unpacked_bytes))
    except RecursionError:
        # It is a RuntimeError, as some of a damaged archive are; whoever reads documents knows what to say of it.
        raise
    except ARCHIVE_ERRORS as error:
        raise damaged(path) from error


def damaged(path: Path) -> DamagedDocumentError:
    """What is said of a document that cannot be read."""
    return DamagedDocumentError(
        f'"{path.name}" is damaged and cannot be read as an office document. It may be only partly downloaded: get it '
        "again, or open it in its program and save it anew."
    )


def is_on(parent: Element | None, name: str) -> bool:
    """Whether a property is set: an element without a value, or one that is not false."""
    found = None if parent is None else parent.find(name)
    return found is not None and found.get("val", "true").lower() not in _FALSE


def value_of(parent: Element | None, path: str, attribute: str = "val") -> str | None:
    """An attribute of the element at a path; None if there is none."""
    found = None if parent is None else parent.find(path)
    return None if found is None else found.get(attribute)


def number_of(text: str | None, otherwise: int) -> int:
    """A text as a number that files may hold."""
    try:
        return max(-(1 << 40), min(1 << 40, int(text)))
    except (TypeError, ValueError):
        return otherwise


class _DoctypeFound(Exception):
    """A part declares a document type."""


class _PlainNames(ElementTree.TreeBuilder):
    """Builds a tree of names without namespaces."""

    def start(self, tag: str, attributes: dict[str, str]) -> Element:
        plain = {_plain_attribute(name): value for name, value in attributes.items()} if attributes else attributes
        return super().start(_plain_tag(tag), plain)

    def end(self, tag: str) -> Element:
        return super().end(_plain_tag(tag))

    def doctype(self, *declared: object) -> None:
        raise _DoctypeFound


@lru_cache(maxsize=_NAMES)
def _plain_tag(name: str) -> str:
    return name.rpartition("}")[2]


@lru_cache(maxsize=_NAMES)
def _plain_attribute(name: str) -> str:
    namespace, _, plain = name.rpartition("}")
    return f"rel:{plain}" if namespace.endswith("/relationships") else plain
