"""Who uses the data folder: one process writes, others may read.

The lock is the system's and ends with its process, however that ends. Beside it stands who has it, for those who do
not get it; a killed process leaves that behind, and it is not believed without the lock. Knows nothing of what is in
the folder.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from app.errors import UserFacingError
from app.store.data_folder import storage_error

LOCK_NAME = "in-use.lock"
HOLDER_NAME = "in-use.json"


@dataclass(frozen=True)
class LockHolder:
    """Who uses a data folder.

    Args:
        process_id: 0 if the holder has not said it.
        address: where its page is open; "" if it has none, or has not said it.
    """

    process_id: int = 0
    address: str = ""

    def __str__(self) -> str:
        process = f"process {self.process_id}" if self.process_id else "a process that has not said its number"
        return f"{process}, {self.address}" if self.address else process


class FolderInUse(UserFacingError):
    """Another process writes in the data folder.

    Args:
        data_dir: the folder.
        holder: who has it.
    """

    def __init__(self, data_dir: Path, holder: LockHolder) -> None:
        process = f" (process {holder.process_id})" if holder.process_id else ""
        is_open = f", and is open at {holder.address}. Use that one" if holder.address else ". Wait for it"
        super().__init__(
            f"Another Quest Chat{process} uses the data folder {data_dir}{is_open}, stop it first, or choose another "
            "folder with --data-dir."
        )
        self.holder = holder


class FolderLock:
    """The right to write in a data folder, until `release` or the end of the process.

    Args:
        data_dir: the folder.
        lock: acquired.
    """

    def __init__(self, data_dir: Path, lock: FileLock) -> None:
        self._data_dir = data_dir
        self._lock = lock

    @classmethod
    def acquire(cls, data_dir: Path, address: str = "") -> FolderLock:
        """Take the folder.

        Args:
            data_dir: is made if it is not there.
            address: where this process's page is open; "" if it has none.

        Raises:
            FolderInUse: if another process, or this one, has it.
            StorageError: if the folder cannot be written.
        """
        # Any thread may let go of it, and a second attempt in this process is refused like another process's.
        lock = FileLock(data_dir / LOCK_NAME, thread_local=False, is_singleton=False)
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise FolderInUse(data_dir, _written_holder(data_dir)) from None
        except OSError as error:
            raise storage_error(error, data_dir) from error
        # On a full disk the lock holds all the same; only its holder stays unknown.
        with suppress(OSError):
            _write_holder(data_dir, LockHolder(os.getpid(), address))
        return cls(data_dir, lock)

    @staticmethod
    def holder(data_dir: Path) -> LockHolder | None:
        """Who has the folder; None if nobody does. Changes nothing."""
        lock_path = data_dir / LOCK_NAME
        if not lock_path.is_file():
            return None
        lock = FileLock(lock_path, is_singleton=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return _written_holder(data_dir)
        except OSError:
            # A lock that may not be opened was another user's, who has not said whether they still run.
            return None
        lock.release()
        return None

    def release(self) -> None:
        """Let go of the folder; further calls do nothing."""
        if self._lock.is_locked:
            (self._data_dir / HOLDER_NAME).unlink(missing_ok=True)
            self._lock.release()


def _write_holder(data_dir: Path, holder: LockHolder) -> None:
    unfinished = data_dir / f"{HOLDER_NAME}.partial"
    unfinished.write_text(json.dumps(asdict(holder)), encoding="utf-8")
    unfinished.replace(data_dir / HOLDER_NAME)


def _written_holder(data_dir: Path) -> LockHolder:
    try:
        stated = json.loads((data_dir / HOLDER_NAME).read_text(encoding="utf-8"))
        return LockHolder(int(stated["process_id"]), str(stated["address"]))
    except (OSError, ValueError, KeyError, TypeError):
        return LockHolder()
