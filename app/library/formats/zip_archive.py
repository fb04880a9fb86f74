"""Zipped formats: the files in one, which give out no more bytes in all than they are allowed to.

Knows nothing of what the files mean: `epub.py` and the office formats do.
"""

import zipfile
import zlib
from pathlib import Path

from app.library.errors import ReadLimitExceeded
from app.library.limits import MEBIBYTE

# What a damaged archive raises. ValueError: a part that is not text; RuntimeError: one that is encrypted.
ARCHIVE_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)
_MAX_ENTRIES = 50_000


class ZipArchive:
    """An open zip file.

    Args:
        path: its name in messages.
        archive: the zip file.
        allowed_bytes: what may come out of it in all.

    Raises:
        ReadLimitExceeded: it has too many entries.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile, allowed_bytes: int):
        if len(archive.infolist()) > _MAX_ENTRIES:
            raise ReadLimitExceeded(
                f'"{path.name}" holds more than {_MAX_ENTRIES:,} files, too many for a book. Split it into parts.'
            )
        self._path = path
        self._archive = archive
        self._allowed_bytes = self._left_bytes = allowed_bytes
        # Documents made on other systems disagree with their own index about upper and lower case.
        self._entries = {entry.filename.lower(): entry for entry in archive.infolist()}

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._entries

    def names(self) -> list[str]:
        """The names of the files in it, as they are spelt."""
        return [entry.filename for entry in self._entries.values()]

    def read(self, name: str) -> bytes:
        """The bytes of one file.

        Raises:
            KeyError: there is none of that name.
            ReadLimitExceeded: more came out than is allowed.
            One of `ARCHIVE_ERRORS`: it is damaged.
        """
        with self._archive.open(self._entries[name.lower()]) as file:
            # The size in the zip's index may lie: what counts is what comes out.
            data = file.read(self._left_bytes + 1)
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            raise ReadLimitExceeded(
                f'"{self._path.name}" unpacks to more data than the {self._allowed_bytes / MEBIBYTE:,.1f} MiB of text '
                "that are read. Split it into parts, unless it is small: then it is damaged, or made to do harm."
            )
        return data
