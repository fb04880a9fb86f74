"""The data folder as one run of the app uses it: written, only read beside another that writes, or left alone.

Says where things are; what they are, `app.store` and `app.library` know.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from app.settings import AppSettings
from app.store.data_folder import StorageFull
from app.store.database import Database
from app.store.folder_lock import FolderInUse, FolderLock
from quest_core.config import EngineConfig


@dataclass(frozen=True)
class OpenedData:
    """What was opened.

    Args:
        folder: where documents are.
        database: of that folder.
        lock: the right to write there; None beside another process that has it.
        engine_config: tells the engine where snapshots are, and whether it may write some.
        is_temporary: whether the folder goes at the end.
        notice: what the user should be told of how the folder was found; "" if all is well.
    """

    folder: Path
    database: Database
    lock: FolderLock | None
    engine_config: EngineConfig
    is_temporary: bool = False
    notice: str = ""

    @classmethod
    def open(cls, settings: AppSettings, keep: bool, beside_another: bool) -> OpenedData:
        """Open it.

        Args:
            settings: name the folder. On a full disk it is only read: nothing old is out of reach for that.
            keep: read and keep documents, conversations and what models have read; else all is in a temporary folder.
            beside_another: if another process writes in it, only read it.

        Raises:
            UserFacingError: the folder cannot be used; `FolderInUse` if another process writes in it.
        """
        if not keep:
            folder = Path(tempfile.mkdtemp(prefix="quest-chat-"))
            return cls(folder, Database.open(folder), None, settings.engine_config(), is_temporary=True)
        lock = None
        try:
            lock = FolderLock.acquire(settings.data_dir, settings.page_address)
        except FolderInUse:
            if not beside_another:
                raise
        is_full = ""
        try:
            try:
                database = Database.open(settings.data_dir, read_only=lock is None)
            except StorageFull as error:
                is_full = f"{error} Until the next start nothing new is kept."
                database = Database.open(settings.data_dir, read_only=True)
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        config = settings.engine_config(keeps_snapshots=True, snapshots_read_only=database.read_only)
        notice = " ".join(filter(None, (is_full, database.notice)))
        return cls(settings.data_dir, database, lock, config, notice=notice)

    @property
    def is_written(self) -> bool:
        """Whether what is new is kept, here or in the temporary folder."""
        return not self.database.read_only

    def close(self) -> None:
        """Let the folder go."""
        self.database.close()
        if self.lock is not None:
            self.lock.release()
        if self.is_temporary:
            shutil.rmtree(self.folder, ignore_errors=True)
