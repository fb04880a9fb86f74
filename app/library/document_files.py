"""The files of the library's documents in the data folder, by the hash of their bytes.

`<document_id><suffix>` is whole, as it appears only once it is; what an ended process has left half is told by its
name. Knows nothing of what is in the files, or of the database.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from app.library.reader import DOCUMENT_ID_DIGITS, content_id

_PARTIAL_PREFIX = "incoming-"
_BLOCK_BYTES = 1 << 20
_KEPT_NAME = re.compile(rf"([0-9a-f]{{{DOCUMENT_ID_DIGITS}}})(\.[a-z0-9]{{1,10}})?")


class DocumentFiles:
    """A folder of documents.

    Args:
        folder: is made with the first document.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, document_id: str, suffix: str) -> Path:
        """Where a document's file is, or would be."""
        return self.folder / f"{document_id}{suffix}"

    def keep(self, source: Path, suffix: str, take: bool) -> str:
        """Bring a file into the folder.

        Args:
            source: the file.
            suffix: what its name in the folder ends with.
            take: let it be there no longer; otherwise it is copied.

        Returns:
            The id of the document that it holds.

        Raises:
            OSError: it cannot be read, or the folder not be written; what was begun is gone again.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        handle, partial_name = tempfile.mkstemp(prefix=_PARTIAL_PREFIX, dir=self.folder)
        partial = Path(partial_name)
        moved = False
        try:
            with os.fdopen(handle, "wb") as target:
                moved = take and _moved(source, partial)
                document_id = content_id(partial) if moved else _copy(source, target)
            _write_through(partial)
            os.replace(partial, self.path(document_id, suffix))
        except BaseException:
            if not (moved and _moved(partial, source)):
                partial.unlink(missing_ok=True)
            raise
        _write_folder_through(self.folder)
        if take and not moved:
            with suppress(OSError):
                source.unlink()
        return document_id

    def forget(self, document_id: str, suffix: str) -> None:
        """Remove a document's file; one that is gone already is no error.

        Raises:
            OSError: if it cannot be removed.
        """
        self.path(document_id, suffix).unlink(missing_ok=True)

    def give_back(self, document_id: str, suffix: str, source: Path | None) -> None:
        """Undo `keep`: put a file that was taken from `source` there again, or remove the copy."""
        if source is None or not _moved(self.path(document_id, suffix), source):
            self.forget(document_id, suffix)

    def kept(self) -> Iterator[tuple[str, str]]:
        """Id and suffix of each document that has a file, going by the names."""
        if not self.folder.is_dir():
            return
        for entry in sorted(self.folder.iterdir()):
            if (match := _KEPT_NAME.fullmatch(entry.name)) and entry.is_file() and not entry.is_symlink():
                yield match.group(1), match.group(2) or ""

    def is_whole(self, document_id: str, suffix: str) -> bool:
        """Whether a document's file has the bytes that its name says; reads all of it.

        Raises:
            OSError: if it cannot be read.
        """
        return content_id(self.path(document_id, suffix)) == document_id

    def clear_partial(self) -> None:
        """Remove what ended processes have left half; call while nobody adds a document."""
        for partial in self.folder.glob(f"{_PARTIAL_PREFIX}*"):
            partial.unlink(missing_ok=True)


def suffix_of(*names: str) -> str:
    """The ending of the first of some file names that has one, in lower case; "" if it is none that may be kept."""
    for name in names:
        suffix = Path(name).suffix.lower()
        if re.fullmatch(r"\.[a-z0-9]{1,10}", suffix):
            return suffix
    return ""


def _moved(source: Path, target: Path) -> bool:
    """Move a file within a disk; False if it is on another one, or may not be moved, or is a link."""
    if source.is_symlink():
        return False
    try:
        os.replace(source, target)
    except OSError:
        return False
    return True


def _copy(source: Path, target) -> str:
    digest = hashlib.sha256()
    with source.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            target.write(block)
    return digest.hexdigest()[:DOCUMENT_ID_DIGITS]


def _write_through(path: Path) -> None:
    # A file that was moved in may be one that is not to be written; nothing new is in it then.
    with suppress(PermissionError), path.open("rb+") as file:
        os.fsync(file.fileno())


def _write_folder_through(folder: Path) -> None:
    # Windows opens no folders, and needs no such thing.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
