"""The database's file: made, brought to this version's tables, looked through, and put aside when it is damaged.

With sqlite3 alone, so that a start need not wait for SQLAlchemy. What is there is never overwritten: a copy is kept
before a migration, and a damaged file is moved. Knows nothing of transactions or rows.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from app.store.data_folder import SQLITE_ERRORS, DatabaseDamaged, StorageError, database_error
from app.store.migrations import APPLICATION_ID, migrate, version_of
from app.store.salvage import take_over
from app.store.search_words import indexed_text

BUSY_TIMEOUT_S = 10.0
# What the log may keep of the disk between two checkpoints.
_LOG_BYTES = 16 << 20
# Up to this size a file is looked through at each start, which takes a tenth of a second.
_CHECKED_BYTES = 32 << 20
# Beside a larger one this says that a damage was met, and that the next start has to look.
_SUSPECT_SUFFIX = ".check"
_LOG_SUFFIXES = ("-wal", "-shm")
# One that is to take the place of a damaged one.
_NEW_SUFFIX = ".new"


def connect(path: Path, read_only: bool = False) -> sqlite3.Connection:
    """A connection to the file, which any thread may use, without a transaction.

    Raises:
        sqlite3.Error, UnicodeDecodeError: it cannot be opened, or is damaged.
    """
    mode = "ro" if read_only else "rwc"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.create_function("indexed_text", 1, indexed_text, deterministic=True)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")
        # What is removed is overwritten, not only forgotten.
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
    except BaseException:
        connection.close()
        raise
    return connection


def bring_up_to_date(path: Path, migrations: Sequence[Sequence[str]], keep_copy: bool = True) -> None:
    """Make the file if there is none, look through it if it is small or suspect, and take the steps it lacks.

    Args:
        path: the file.
        migrations: the steps to this version.
        keep_copy: keep a copy of an older file beside it.

    Raises:
        DatabaseDamaged, StorageError: see `app.store.database.Database.open`.
    """
    try:
        # Conversations are their owner's to read; the log takes after the file.
        path.touch(mode=0o600)
        with closing(connect(path)) as connection:
            version = checked_version(connection, path, len(migrations))
            is_suspect = suspect_mark(path).exists()
            if is_suspect or path.stat().st_size <= _CHECKED_BYTES:
                _look_through(connection, path)
            if is_suspect and _schema(connection) != _schema_of(migrations[:version]):
                raise DatabaseDamaged(f"The database {path} is damaged.")
            # Both are kept in the file; the first has to come before any table.
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
            if 0 < version < len(migrations) and keep_copy:
                _copy(connection, path.with_name(f"{path.stem}.version-{version}{path.suffix}"))
            migrate(connection, migrations)
        suspect_mark(path).unlink(missing_ok=True)
    except SQLITE_ERRORS as error:
        raise database_error(error, path) from error


def checked_version(connection: sqlite3.Connection, path: Path, newest: int) -> int:
    """The file's version.

    Raises:
        StorageError: it is newer than `newest`, or of another program.
    """
    try:
        version = version_of(connection)
        application_id = connection.execute("PRAGMA application_id").fetchone()[0]
        has_tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] > 0
    except SQLITE_ERRORS as error:
        told = database_error(error, path)
        if isinstance(told, DatabaseDamaged):
            raise told from error
        raise
    if has_tables and application_id != APPLICATION_ID:
        raise StorageError(f"{path} is not a database of Quest Chat. Move it away, or choose another --data-dir.")
    if version > newest:
        raise StorageError(
            f"{path} was written by a newer Quest Chat (its tables have version {version}, this one knows {newest}). "
            "Update Quest Chat, or choose another --data-dir."
        )
    return version


def _look_through(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        raise DatabaseDamaged(f"The database {path} is damaged.")


def _schema(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    return set(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))


def _schema_of(migrations: Sequence[Sequence[str]]) -> set[tuple[str, str]]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.create_function("indexed_text", 1, indexed_text, deterministic=True)
        migrate(connection, migrations)
        return _schema(connection)


def _copy(connection: sqlite3.Connection, target: Path) -> None:
    """Keep a copy of a database; it appears whole or not at all."""
    unfinished = target.with_name(f"{target.name}.partial")
    unfinished.unlink(missing_ok=True)
    try:
        unfinished.touch(mode=0o600)
        with closing(sqlite3.connect(unfinished)) as copy:
            connection.backup(copy)
        os.replace(unfinished, target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def begin_anew(path: Path, migrations: Sequence[Sequence[str]]) -> str:
    """Put a new database in the place of a damaged one, with what can be read of that; returns what to tell of it.

    The damaged one is moved aside once the new one is whole.
    """
    new = path.with_name(path.name + _NEW_SUFFIX)
    for suffix in ("", *_LOG_SUFFIXES):
        new.with_name(new.name + suffix).unlink(missing_ok=True)
    bring_up_to_date(new, migrations)
    counts = {}
    try:
        with closing(connect(new)) as target:
            # Flipped bits may be anywhere in it, also where it says how it is to be read.
            with suppress(*SQLITE_ERRORS), closing(connect(path, read_only=True)) as damaged:
                counts = take_over(damaged, target)
            target.execute("PRAGMA journal_mode = DELETE")
    except SQLITE_ERRORS as error:
        raise database_error(error, new) from error
    aside = _put_aside(path)
    os.replace(new, path)
    suspect_mark(path).unlink(missing_ok=True)
    kept = ", ".join(f"{counts[table]:,} {table}" for table in ("conversations", "turns", "documents") if counts)
    return (
        f"The database of the data folder was damaged and has been put aside as {aside}. "
        + (f"What could be read of it was taken over: {kept}." if kept else "Nothing of it could be read.")
        + " Documents that it did not have any more are read again."
    )


def finish_replacing(path: Path) -> None:
    """Where a process ended between moving a damaged database aside and putting the new one in its place."""
    new = path.with_name(path.name + _NEW_SUFFIX)
    if new.exists() and not path.exists():
        # A log of the one must not be found by the other.
        _put_aside(path)
        os.replace(new, path)


def _put_aside(path: Path) -> Path:
    """Move a damaged database and its log out of the way; returns where it is now."""
    moment = time.strftime("%Y%m%d-%H%M%S")
    aside = path.with_name(f"{path.stem}.damaged-{moment}{path.suffix}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.stem}.damaged-{moment}-{number}{path.suffix}")
    # The file first: while it is there, the log belongs to it.
    for suffix in ("", *_LOG_SUFFIXES):
        with suppress(FileNotFoundError):
            os.replace(path.with_name(path.name + suffix), aside.with_name(aside.name + suffix))
    return aside


def suspect_mark(path: Path) -> Path:
    """The file beside a database that says that a damage was met; the next start looks through all of it."""
    return path.with_name(path.name + _SUSPECT_SUFFIX)
