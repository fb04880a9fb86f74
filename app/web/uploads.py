"""Uploaded files on the disk, and how long they stay.

Every running server has a folder of its own below the data folder's `uploads`, and every upload one in that, so that
nobody removes what another still reads. A lock that ends with its process tells the folder of a running server from
what a killed one has left. Knows nothing of Gradio or HTTP.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

_STARTING = "starting.lock"
# Starting servers clear one after the other; that takes no longer, whatever a killed one has left.
_CLEARING_TIMEOUT_S = 30.0


class UploadFolder:
    """The folder that one server's uploads are in.

    Args:
        root: the folder.
        lock: held as long as the server runs, if this object is the server's own.
    """

    def __init__(self, root: Path, lock: FileLock | None = None) -> None:
        self.root = root.resolve()
        self._lock = lock

    @classmethod
    def open(cls, parent: Path) -> UploadFolder:
        """Make a folder in `parent`, out of which everything goes that no running server owns.

        Raises:
            OSError: if the folder cannot be made.
        """
        parent.mkdir(parents=True, exist_ok=True)
        with FileLock(parent / _STARTING, timeout=_CLEARING_TIMEOUT_S):
            _clear(parent)
            root = Path(tempfile.mkdtemp(prefix="server-", dir=parent))
            lock = FileLock(_lock_path(root), thread_local=False)
            lock.acquire()
        return cls(root, lock)

    def new_folder(self) -> Path:
        """An empty folder for one upload."""
        return Path(tempfile.mkdtemp(dir=self.root))

    def close(self) -> None:
        """Remove the folder and all that is in it."""
        shutil.rmtree(self.root, ignore_errors=True)
        if self._lock is not None:
            self._lock.release()
            _lock_path(self.root).unlink(missing_ok=True)


def _lock_path(root: Path) -> Path:
    return root.with_name(f"{root.name}.lock")


def _clear(parent: Path) -> None:
    """Remove what no running server owns; call while no other server starts."""
    for entry in parent.iterdir():
        if entry.is_symlink() or not entry.is_dir():
            # The locks of running servers, and the one that this server holds while it clears.
            if entry.suffix != ".lock":
                entry.unlink(missing_ok=True)
            continue
        with suppress(Timeout), FileLock(_lock_path(entry), blocking=False):
            shutil.rmtree(entry, ignore_errors=True)
    for lock_path in parent.glob("*.lock"):
        if lock_path.name != _STARTING and not lock_path.with_suffix("").exists():
            lock_path.unlink(missing_ok=True)
