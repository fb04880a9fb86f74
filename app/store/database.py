"""The database of the data folder: opened, and used in transactions.

One file holds documents' texts and conversations. It is written through a log (WAL) that is flushed with each
transaction: what was committed survives a killed process and a power failure. Opening looks at the file with sqlite3
alone; SQLAlchemy takes half a second to import, and comes with the first transaction. Knows no rows.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.store.data_folder import SQLITE_ERRORS, DatabaseDamaged, StorageError, database_error, storage_error
from app.store.database_file import (
    BUSY_TIMEOUT_S,
    begin_anew,
    bring_up_to_date,
    checked_version,
    connect,
    finish_replacing,
    suspect_mark,
)
from app.store.migrations import MIGRATIONS, WORD_INDEXES

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

DATABASE_NAME = "quest-chat.sqlite3"


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
            finish_replacing(path)
            try:
                bring_up_to_date(path, migrations)
                notice = ""
            except DatabaseDamaged:
                notice = begin_anew(path, migrations)
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
            return cls(path, notice=begin_anew(path, MIGRATIONS))
        except OSError as error:
            raise storage_error(error, data_dir) from error

    @classmethod
    def temporary(cls) -> Database:
        """An empty database in a folder of its own, which goes when it is closed."""
        folder = Path(tempfile.mkdtemp(prefix="quest-chat-"))
        path = folder / DATABASE_NAME
        bring_up_to_date(path, MIGRATIONS)
        return cls(path, private_folder=folder)

    @classmethod
    def _open_for_reading(cls, path: Path, migrations: Sequence[Sequence[str]]) -> Database:
        # It may be damaged or missing, or be without its log, which a reader may not make in a read-only folder.
        with suppress(*SQLITE_ERRORS, DatabaseDamaged), closing(connect(path, read_only=True)) as connection:
            if checked_version(connection, path, len(migrations)) == len(migrations):
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
                bring_up_to_date(copy, migrations, keep_copy=False)
            except DatabaseDamaged as error:
                begin_anew(copy, migrations)
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
            with closing(connect(self.path, self.read_only)) as connection:
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
                own.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")

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
                    suspect_mark(self.path).touch()
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
            creator=lambda: connect(self.path, self.read_only),
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
