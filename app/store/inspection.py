"""What the data folder holds, how large it is, and whether it is whole: for `doctor`.

Looking changes nothing. Verifying reads every file once; it repairs only while it has the folder to itself, and removes
nothing that cannot be made again: what a model has kept of a document can be, the document cannot.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.library.document_files import DocumentFiles
from app.library.library import DOCUMENTS_FOLDER
from app.store.conversation_store import ConversationStore
from app.store.data_folder import StorageError
from app.store.database import DATABASE_NAME, Database
from app.store.document_store import DocumentStore
from app.store.folder_lock import FolderInUse, FolderLock, LockHolder
from app.store.snapshot_folder import snapshot_sizes, verify_snapshots
from quest_core.model.converted_models import MANIFEST, is_whole

MODELS_FOLDER = "models"
_DAMAGED_SUFFIX = ".damaged"


@dataclass(frozen=True)
class StorageSizes:
    """Sizes of what is kept, in bytes.

    Args:
        documents: of the documents' files; there are `document_count`.
        database: its file and its log; `database_copies` are older and damaged ones that were kept.
        conversation_count: conversations with a question or a document.
        fault: a sentence on why the database cannot be used; "" if it can.
        snapshots: of what models have kept of documents, by model and layout.
        models: of converted models, by name.
        holder: the process that uses the folder; None if none does.
    """

    documents: int
    document_count: int
    database: int
    database_copies: int
    conversation_count: int = 0
    fault: str = ""
    snapshots: dict[str, int] = field(default_factory=dict)
    models: dict[str, int] = field(default_factory=dict)
    holder: LockHolder | None = None

    def to_json(self) -> dict[str, Any]:
        """For a JSON file."""
        holder = self.holder
        return {
            "documents": self.document_count,
            "documents_bytes": self.documents,
            "conversations": self.conversation_count,
            "database_bytes": self.database,
            "database_copies_bytes": self.database_copies,
            "snapshots_bytes": self.snapshots,
            "models_bytes": self.models,
            "used_by": None if holder is None else {"process_id": holder.process_id, "address": holder.address},
        }


@dataclass(frozen=True)
class StorageFault:
    """Something that is not as it should be.

    Args:
        message: a sentence that names it and says what becomes of it, or what to do.
        is_repaired: whether that has been done.
    """

    message: str
    is_repaired: bool = False


def storage_sizes(data_dir: Path) -> StorageSizes:
    """Measure what a data folder holds; the folder need not be there."""
    database_stem = Path(DATABASE_NAME).stem
    live = {DATABASE_NAME + suffix for suffix in ("", "-wal", "-shm")}
    databases = {path.name: _size(path) for path in data_dir.glob(f"{database_stem}*")}
    documents = [_size(path) for path in (data_dir / DOCUMENTS_FOLDER).glob("*")]
    conversation_count, fault = _conversations(data_dir)
    return StorageSizes(
        documents=sum(documents),
        document_count=len(documents),
        database=sum(size for name, size in databases.items() if name in live),
        database_copies=sum(size for name, size in databases.items() if name not in live),
        conversation_count=conversation_count,
        fault=fault,
        snapshots=snapshot_sizes(data_dir),
        models=_folder_sizes(data_dir / MODELS_FOLDER),
        holder=FolderLock.holder(data_dir),
    )


def verify_storage(data_dir: Path) -> Iterator[StorageFault]:
    """Read all that is kept, and repair what can be.

    Yields:
        What was wrong, as it is found; nothing if all is whole.
    """
    if not data_dir.is_dir():
        return
    lock = None
    try:
        lock = FolderLock.acquire(data_dir)
    except FolderInUse as error:
        yield StorageFault(f"Nothing is repaired now: the data folder is used by {error.holder}.", is_repaired=True)
    except StorageError as error:
        yield StorageFault(f"Nothing can be repaired: {error.message}")
    try:
        may_repair = lock is not None
        yield from _verify_database(data_dir, may_repair)
        yield from _verify_documents(data_dir, may_repair)
        for message, is_repaired in verify_snapshots(data_dir, may_repair):
            yield StorageFault(message, is_repaired)
        yield from _verify_models(data_dir)
    finally:
        if lock is not None:
            lock.release()


def _conversations(data_dir: Path) -> tuple[int, str]:
    """How many conversations there are, and what is wrong with their database as far as a glance tells."""
    if not (data_dir / DATABASE_NAME).exists():
        return 0, ""
    try:
        database = Database.open(data_dir, read_only=True)
        try:
            return len(ConversationStore(database).summaries()), database.notice
        finally:
            database.close()
    except StorageError as error:
        return 0, error.message


def _verify_database(data_dir: Path, may_repair: bool) -> Iterator[StorageFault]:
    path = data_dir / DATABASE_NAME
    if not path.exists():
        return
    try:
        database = Database.open(data_dir, read_only=not may_repair)
        try:
            notice, faults = database.notice, database.faults()
        finally:
            database.close()
        if notice:
            yield StorageFault(notice, is_repaired=may_repair)
        if faults and may_repair:
            mended = Database.mend(data_dir)
            mended.close()
            yield StorageFault(f"{faults[0]}: {mended.notice}", is_repaired=True)
        elif faults:
            yield StorageFault(f"The database {path} is damaged ({faults[0]}).")
    except StorageError as error:
        yield StorageFault(error.message)


def _verify_documents(data_dir: Path, may_repair: bool) -> Iterator[StorageFault]:
    files = DocumentFiles(data_dir / DOCUMENTS_FOLDER)
    names: dict[str, str] = {}
    if (data_dir / DATABASE_NAME).exists():
        with suppress(StorageError):
            database = Database.open(data_dir, read_only=True)
            try:
                names = {entry.document_id: entry.name for entry in DocumentStore(database).entries()}
            finally:
                database.close()
    found = set()
    for document_id, suffix in files.kept():
        found.add(document_id)
        path = files.path(document_id, suffix)
        name = names.get(document_id, path.name)
        try:
            is_whole = files.is_whole(document_id, suffix)
        except OSError as error:
            yield StorageFault(f'The file of "{name}" cannot be read ({path}): {error.strerror or error}.')
            continue
        if not is_whole:
            advice = "Add the document again; until then its text, which is kept apart, is what answers read."
            if may_repair:
                os.replace(path, path.with_name(path.name + _DAMAGED_SUFFIX))
            yield StorageFault(f'The file of "{name}" is damaged ({path}). {advice}')
        elif document_id not in names:
            yield StorageFault(f"{path} is in no list; the next start takes it into the library.", is_repaired=True)
    for document_id, name in names.items():
        if document_id not in found:
            yield StorageFault(
                f'The file of "{name}" is gone from {files.folder}. Its text is kept; add the document again to have '
                "its file."
            )
    if may_repair:
        files.clear_partial()


def _verify_models(data_dir: Path) -> Iterator[StorageFault]:
    for manifest in sorted((data_dir / MODELS_FOLDER).glob(f"*/{MANIFEST}")):
        if not is_whole(manifest.parent):
            yield StorageFault(
                f"The converted model {manifest.parent.name} is damaged; it is converted again when it is needed.",
                is_repaired=True,
            )


def _folder_sizes(folder: Path) -> dict[str, int]:
    if not folder.is_dir():
        return {}
    return {entry.name: _size(entry) for entry in sorted(folder.iterdir()) if entry.is_dir()}


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; 0 of what has gone meanwhile."""
    total = 0
    with suppress(OSError):
        total += 0 if path.is_dir() else path.lstat().st_size
    for parent, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total
