"""What to tell when the data folder cannot be used: it is read-only, no folder, damaged, or its disk is full.

Sentences only; what was being written, and what becomes of it, belongs to its writer.
"""

from __future__ import annotations

import errno
import shutil
import sqlite3
from pathlib import Path

from app.errors import UserFacingError

_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT)
_DAMAGE_MARKS = ("malformed", "not a database", "could not decode", "corrupt", "no such table", "no such column")
# What sqlite3 raises of a file; the second where the words of an error, which quote the file, are damaged.
SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
# Where less is free, an unexplained failure to write is that of a full disk: SQLite does not always say so.
_NEARLY_NOTHING_BYTES = 1 << 20


class StorageError(UserFacingError):
    """The data folder could not be read or written. What was in it before is as it was."""


class StorageFull(StorageError):
    """The disk of the data folder is full."""


class DatabaseDamaged(StorageError):
    """The database's file is damaged."""


def explain_storage_error(error: OSError, data_dir: Path) -> str:
    """A sentence that says what is wrong with the data folder and what to do; other errors speak for themselves."""
    if error.errno in _DISK_IS_FULL:
        # Such an error seldom names its file.
        return (
            f"The disk of the data folder {data_dir} is full. Free some space (`python launch.py doctor` says what "
            "takes how much of the folder, and removing a document gives its part back), or choose a folder on another "
            "disk with --data-dir."
        )
    path = Path(error.filename or "")
    if not path.is_relative_to(data_dir) or isinstance(error, FileNotFoundError):
        return str(error)
    place = "" if path == data_dir else f" ({path.relative_to(data_dir)})"
    return f"The data folder {data_dir} cannot be written to{place}: {error.strerror}. Choose another with --data-dir."


def storage_error(error: OSError, data_dir: Path) -> StorageError:
    """What to raise in place of an error that writing a file in the data folder has met."""
    error_class = StorageFull if error.errno in _DISK_IS_FULL else StorageError
    return error_class(explain_storage_error(error, data_dir))


def database_error(error: Exception, path: Path) -> StorageError:
    """What to raise in place of an error of the database.

    Args:
        error: sqlite3's own; Python 3.10 has no codes for them, only words.
        path: the database's file, in the data folder.
    """
    words = str(error).lower()
    # Where a flipped bit is in a text, or in one that SQLite complains of, Python cannot decode it.
    if isinstance(error, UnicodeDecodeError) or any(mark in words for mark in _DAMAGE_MARKS):
        return DatabaseDamaged(
            f"The database {path} is damaged. Start Quest Chat anew: it puts the file aside and begins another."
        )
    if "full" in words or ("disk i/o" in words and _is_nearly_full(path.parent)):
        return StorageFull(explain_storage_error(OSError(errno.ENOSPC, ""), path.parent))
    if "readonly" in words or "unable to open" in words:
        return StorageError(
            f"The data folder {path.parent} cannot be written to ({path.name}): {error}. Choose another with "
            "--data-dir."
        )
    if "locked" in words or "busy" in words:
        return StorageError(f"Another program keeps the database {path} to itself. Close what uses it, and try again.")
    return StorageError(f"The database {path} cannot be used: {error}. Check its disk, or choose another --data-dir.")


def _is_nearly_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < _NEARLY_NOTHING_BYTES
    except OSError:
        return False
