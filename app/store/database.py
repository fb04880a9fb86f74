"""The database of the data folder: SQLite's file, opened, brought to this version's tables, and used in transactions.

One file holds documents' texts and conversations. It is written through a log (WAL) that is flushed with each
transaction: what was committed survives a killed process and a power failure. Opening looks at the file with sqlite3
alone; SQLAlchemy takes half a second to import, and comes with the first transaction. Knows no rows.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.store.data_folder import SQLITE_ERRORS, DatabaseDamaged, StorageError, database_error, storage_error
from app.store.migrations import APPLICATION_ID, MIGRATIONS, WORD_INDEXES, migrate, version_of
from app.store.salvage import take_over
from app.store.search_words import indexed_text

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

DATABASE_NAME = "quest-chat.sqlite3"
_BUSY_TIMEOUT_S = 10.0
# What the log may keep of the disk between two checkpoints.
_LOG_BYTES = 16 << 20
# Up to this size a file is looked through at each start, which takes a tenth of a second.
_CHECKED_BYTES = 32 << 20
# Beside a larger one this says that a damage was met, and that the next start has to look.
_SUSPECT_SUFFIX = ".check"
_LOG_SUFFIXES = ("-wal", "-shm")
# One that is to take the place of a damaged one.
_NEW_SUFFIX = ".new"


class Database:
    """An opened database; safe to use from any thread.

    Args:
        path: its file, at this version.
        read_only: refuse to write.
        notice: what its user should be told of how it was opened.
        private_folder: goes when it is closed.

    Attributes:
        path, read_only, notice: as given.
    """

    def __init__(
        self, path: Path, read_only: bool = False, notice: str = "", private_folder: Path | None = None
    ) -> None:
        self.path = path
        self.read_only = read_only
        self.notice = notice
        self._private_folder = private_folder
        self._lock = threading.Lock()
        # Within the process writers wait for each other here, and not in SQLite, which polls.
        self._writing = threading.Lock()
        self._engine: Engine | None = None
        self._closed = False

    @classmethod
    def open(
        cls, data_dir: Path, read_only: bool = False, migrations: Sequence[Sequence[str]] = MIGRATIONS
    ) -> Database:
        """Open the data folder's database.

        Whoever writes holds the folder's lock. An older file is brought to this version, and a copy of it kept; a
        damaged one is put aside, `notice` says where, and a new one takes its place with what could be read of it.

        Args:
            data_dir: is made if it is not there.
            read_only: write nothing there; an older, damaged or missing file is read as well as it can be.
            migrations: the steps to this version.

        Raises:
            StorageError: the folder cannot be used, the disk is full, or the file is of a newer version or another
                program's.
        """
        path = data_dir / DATABASE_NAME
        if read_only:
            return cls._open_for_reading(path, migrations)
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            _finish_replacing(path)
            try:
                _bring_up_to_date(path, migrations)
                notice = ""
            except DatabaseDamaged:
                notice = _begin_anew(path, migrations)
        except OSError as error:
            raise storage_error(error, data_dir) from error
        return cls(path, notice=notice)

    @classmethod
    def mend(cls, data_dir: Path) -> Database:
        """Put the data folder's database aside, and open a new one with all that can be read of it.

        Raises:
            StorageError: as `open`; the old one is in its place then.
        """
        path = data_dir / DATABASE_NAME
        try:
            return cls(path, notice=_begin_anew(path, MIGRATIONS))
        except OSError as error:
            raise storage_error(error, data_dir) from error

    @classmethod
    def temporary(cls) -> Database:
        """An empty database in a folder of its own, which goes when it is closed."""
        folder = Path(tempfile.mkdtemp(prefix="quest-chat-"))
        path = folder / DATABASE_NAME
        _bring_up_to_date(path, MIGRATIONS)
        return cls(path, private_folder=folder)

    @classmethod
    def _open_for_reading(cls, path: Path, migrations: Sequence[Sequence[str]]) -> Database:
        # It may be damaged or missing, or be without its log, which a reader may not make in a read-only folder.
        with suppress(*SQLITE_ERRORS, DatabaseDamaged), closing(_connect(path, read_only=True)) as connection:
            if _checked_version(connection, path, len(migrations)) == len(migrations):
                return cls(path, read_only=True)
        return cls._open_copy(path, migrations)

    @classmethod
    def _open_copy(cls, path: Path, migrations: Sequence[Sequence[str]]) -> Database:
        """Read a file that must not be touched, and cannot be read as it is, from a copy."""
        folder = Path(tempfile.mkdtemp(prefix="quest-chat-"))
        copy, notice = folder / DATABASE_NAME, ""
        try:
            for source in (path, path.with_name(path.name + "-wal")):
                if source.exists():
                    shutil.copyfile(source, folder / source.name)
            try:
                _bring_up_to_date(copy, migrations, keep_copy=False)
            except DatabaseDamaged as error:
                _begin_anew(copy, migrations)
                notice = f"{error} What can be read of it is shown."
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise storage_error(error, path.parent) from error
            raise
        return cls(copy, read_only=True, notice=notice, private_folder=folder)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees the database as it is now, whatever is written meanwhile.

        Yields:
            SQLAlchemy's connection; statements go through its `exec_driver_sql`.

        Raises:
            StorageError: the database cannot be read.
        """
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is committed at the end of the block, or leaves all as it was if that raises.

        Yields:
            SQLAlchemy's connection; statements go through its `exec_driver_sql`.

        Raises:
            StorageError: nothing was written, because the disk is full, for instance.
        """
        if self.read_only:
            raise StorageError(
                f"Nothing is kept: the data folder {self.path.parent} is only read here. Close the Quest Chat that "
                "uses it first."
            )
        with self._writing, self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    def finds(self, query: str, parameters: Sequence[Any] = ()) -> bool:
        """Whether a query has a row; without SQLAlchemy, so that a start that finds nothing to do need not wait for it.

        Raises:
            StorageError: the database cannot be read.
        """
        try:
            with closing(_connect(self.path, self.read_only)) as connection:
                return connection.execute(query, parameters).fetchone() is not None
        except SQLITE_ERRORS as error:
            raise database_error(error, self.path) from error

    def faults(self) -> list[str]:
        """Look through the whole file; what is wrong with it, in SQLite's words. Takes seconds for gigabytes."""
        try:
            with self.reading() as connection:
                found = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
                found += [
                    f"a row of {table} belongs to nothing"
                    for table, *_ in connection.exec_driver_sql("PRAGMA foreign_key_check")
                ]
            if not self.read_only:
                with self.writing() as connection:
                    for index in WORD_INDEXES:
                        # Raises what is wrong; writes nothing, though SQLite takes it for a change.
                        connection.exec_driver_sql(f"INSERT INTO {index} ({index}) VALUES ('integrity-check')")
        except StorageError as error:
            return [error.message]
        return [fault for fault in found if fault != "ok"]

    def write_back(self) -> None:
        """Bring what is in the log into the file and make the log empty, as far as nobody reads what was there before.

        Otherwise that happens once the log has grown to a few MiB: too late on a disk that is nearly full.
        """
        with suppress(*SQLITE_ERRORS), self._writing, closing(self._connected_engine().raw_connection()) as connection:
            own = connection.driver_connection
            # Readers are not waited for. In a transaction it could not be done at all.
            own.execute("PRAGMA busy_timeout = 0")
            try:
                own.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                own.execute(f"PRAGMA busy_timeout = {int(_BUSY_TIMEOUT_S * 1000)}")

    def close(self) -> None:
        """Let the file go; further calls do nothing."""
        with self._lock:
            engine, self._engine, self._closed = self._engine, None, True
        if engine is not None:
            engine.dispose()
        if self._private_folder is not None:
            shutil.rmtree(self._private_folder, ignore_errors=True)

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Connection]:
        from sqlalchemy.exc import DBAPIError

        try:
            with self._connected_engine().connect() as connection:
                connection.execution_options(begin=begin)
                with connection.begin():
                    yield connection
        except (DBAPIError, UnicodeDecodeError) as error:
            told = database_error(getattr(error, "orig", None) or error, self.path)
            if isinstance(told, DatabaseDamaged):
                with suppress(OSError):
                    _suspect_mark(self.path).touch()
            raise told from error

    def _connected_engine(self) -> Engine:
        with self._lock:
            if self._closed:
                raise StorageError("Quest Chat is closing. Start it again.")
            if self._engine is None:
                self._engine = self._make_engine()
            return self._engine

    def _make_engine(self) -> Engine:
        import sqlalchemy
        from sqlalchemy.pool import QueuePool

        # A connection for each thread that is at work at the same time; so many are kept open.
        engine = sqlalchemy.create_engine(
            "sqlite://",
            creator=lambda: _connect(self.path, self.read_only),
            poolclass=QueuePool,
            pool_size=8,
            max_overflow=-1,
        )
        sqlalchemy.event.listen(
            engine,
            "begin",
            # sqlite3 would begin only before the first change, and never immediately.
            lambda connection: connection.exec_driver_sql(connection.get_execution_options()["begin"]),
        )
        return engine


def _connect(path: Path, read_only: bool = False) -> sqlite3.Connection:
    mode = "ro" if read_only else "rwc"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=_BUSY_TIMEOUT_S,
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


def _bring_up_to_date(path: Path, migrations: Sequence[Sequence[str]], keep_copy: bool = True) -> None:
    """Make the file if there is none, look through it if it is small or suspect, and take the steps it lacks.

    Raises:
        DatabaseDamaged, StorageError: see `Database.open`.
    """
    try:
        # Conversations are their owner's to read; the log takes after the file.
        path.touch(mode=0o600)
        with closing(_connect(path)) as connection:
            version = _checked_version(connection, path, len(migrations))
            is_suspect = _suspect_mark(path).exists()
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
        _suspect_mark(path).unlink(missing_ok=True)
    except SQLITE_ERRORS as error:
        raise database_error(error, path) from error


def _checked_version(connection: sqlite3.Connection, path: Path, newest: int) -> int:
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


def _begin_anew(path: Path, migrations: Sequence[Sequence[str]]) -> str:
    """Put a new database in the place of a damaged one, with what can be read of that; returns what to tell of it.

    The damaged one is moved aside once the new one is whole.
    """
    new = path.with_name(path.name + _NEW_SUFFIX)
    for suffix in ("", *_LOG_SUFFIXES):
        new.with_name(new.name + suffix).unlink(missing_ok=True)
    _bring_up_to_date(new, migrations)
    counts = {}
    try:
        with closing(_connect(new)) as target:
            # Flipped bits may be anywhere in it, also where it says how it is to be read.
            with suppress(*SQLITE_ERRORS), closing(_connect(path, read_only=True)) as damaged:
                counts = take_over(damaged, target)
            target.execute("PRAGMA journal_mode = DELETE")
    except SQLITE_ERRORS as error:
        raise database_error(error, new) from error
    aside = _put_aside(path)
    os.replace(new, path)
    _suspect_mark(path).unlink(missing_ok=True)
    kept = ", ".join(f"{counts[table]:,} {table}" for table in ("conversations", "turns", "documents") if counts)
    return (
        f"The database of the data folder was damaged and has been put aside as {aside}. "
        + (f"What could be read of it was taken over: {kept}." if kept else "Nothing of it could be read.")
        + " Documents that it did not have any more are read again."
    )


def _finish_replacing(path: Path) -> None:
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


def _suspect_mark(path: Path) -> Path:
    return path.with_name(path.name + _SUSPECT_SUFFIX)
