"""The system's file cache, out of which a benchmark takes what is to come from the disk."""

from __future__ import annotations

import os
from pathlib import Path


def drop_from_file_cache(folder: Path) -> None:
    """Make the system read the files of a folder from the disk again, where it can be told to."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)
