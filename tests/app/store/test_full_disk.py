"""A disk that fills up: nothing old is lost, the sentence says what to do, and with space again all goes on."""

from __future__ import annotations

import os
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from app.library.library import Library
from app.store.conversation_store import ConversationStore
from app.store.data_folder import StorageFull
from app.store.database import DATABASE_NAME, Database
from app.store.folder_lock import FolderLock
from app.store.migrations import MIGRATIONS

LONG = "word " * 20_000  # 100 kB, and as much again in the log


@contextmanager
def filled(disk: Path, left_bytes: int = 0):
    """All but `left_bytes` of a disk are taken."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    size = ballast.stat().st_size
    if left_bytes:
        os.truncate(ballast, max(0, size - left_bytes))
    yield
    ballast.unlink()


def test_conversations(small_disk):
    database = Database.open(small_disk / "data")
    conversations = ConversationStore(database)
    conversation_id = conversations.create()
    first = conversations.begin_turn(conversation_id, None, "one")
    conversations.finish_turn(first, "An answer.", {}, (1, 2))
    second = conversations.begin_turn(conversation_id, first, "two")
    conversations.save_partial(second, "Half", (1,))
    writes = (
        lambda: conversations.create(),
        lambda: conversations.begin_turn(conversation_id, first, LONG),
        lambda: conversations.save_partial(second, LONG, (1, 2)),
        lambda: conversations.finish_turn(second, LONG, {}, (1, 2)),
        lambda: conversations.rename(conversation_id, "another"),
        lambda: conversations.set_documents(conversation_id, []),
        lambda: conversations.delete(conversation_id),
        lambda: conversations.recover(),
    )
    for left_bytes in (0, 8192, 65_536):
        with filled(small_disk, left_bytes):
            refused = 0
            for write in writes if not left_bytes else writes[1:4]:
                # Something may still fit into the log.
                for _ in range(60):
                    try:
                        write()
                    except StorageFull as error:
                        assert "is full. Free some space (`python launch.py doctor`" in error.message
                        refused += 1
                        break
            assert refused == (len(writes) if not left_bytes else 3) or left_bytes
            assert conversations.find(conversation_id).turns[0].answer == "An answer."
        assert database.faults() == []
    assert refused
    third = conversations.begin_turn(conversation_id, first, "three")
    conversations.finish_turn(third, "Another.", {}, (3,))
    database.close()
    with closing(Database.open(small_disk / "data")) as database:
        assert database.notice == "" and database.faults() == []
        turns = ConversationStore(database).find(conversation_id).turns
        assert [turn.answer for turn in turns] == ["An answer.", "Another."]


def test_opening(small_disk):
    with filled(small_disk):
        with pytest.raises(StorageFull, match="is full"):
            Database.open(small_disk / "data")
    Database.open(small_disk / "data").close()


def test_a_migration(small_disk):
    data_dir = small_disk / "data"
    with closing(Database.open(data_dir)) as database:
        conversations = ConversationStore(database)
        conversation_id = conversations.create()
        for _ in range(5):
            conversations.begin_turn(conversation_id, None, LONG)
    step = ("CREATE TABLE copies AS SELECT * FROM turns",)
    for left_bytes in (0, 200_000, 900_000):
        with filled(small_disk, left_bytes), pytest.raises(StorageFull):
            Database.open(data_dir, migrations=(*MIGRATIONS, step))
        with closing(Database.open(data_dir)) as database:
            assert ConversationStore(database).find(conversation_id).turns[0].question == LONG
    Database.open(data_dir, migrations=(*MIGRATIONS, step)).close()


def test_mending(small_disk):
    data_dir = small_disk / "data"
    data_dir.mkdir()
    damaged = b"not a database at all, " * 5000
    (data_dir / DATABASE_NAME).write_bytes(damaged)
    with filled(small_disk), pytest.raises(StorageFull):
        Database.open(data_dir)
    assert (data_dir / DATABASE_NAME).read_bytes() == damaged
    with closing(Database.open(data_dir)) as database:
        assert "put aside" in database.notice


def test_the_folder_is_locked_all_the_same(small_disk):
    data_dir = small_disk / "data"
    data_dir.mkdir()
    with filled(small_disk):
        lock = FolderLock.acquire(data_dir, "http://127.0.0.1:7860")
        assert FolderLock.holder(data_dir) is not None
        lock.release()


@pytest.fixture
def library(small_disk):
    with closing(Database.open(small_disk / "data")) as database, closing(Library(small_disk / "data", database)) as it:
        yield it


def book(folder: Path, name: str, characters: int) -> Path:
    path = folder / name
    path.write_text(f"This is {name}. " + "A harbour and its light. " * (characters // 25))
    return path


def test_a_document_is_kept_whole_or_not_at_all(library, small_disk, tmp_path):
    first = library.wait(library.add(book(tmp_path, "first.txt", 1000)).document_id)
    large = book(tmp_path, "large.txt", 400_000)
    for left_bytes in (0, 300_000):
        with filled(small_disk, left_bytes):
            with pytest.raises(StorageFull, match="is full"):
                library.add(large)
            assert [entry.name for entry in library.entries()] == ["first.txt"]
            assert library.document(first.document_id).text_characters > 900
    assert [path.name for path in (small_disk / "data" / "documents").iterdir()] == [f"{first.document_id}.txt"]
    assert library.wait(library.add(large).document_id).state == "read"


def test_a_text_that_does_not_fit_is_read_again(library, small_disk, tmp_path):
    path = book(tmp_path, "book.txt", 400_000)
    with filled(small_disk, 700_000):
        entry = library.wait(library.add(path).document_id)
        assert entry.state == "failed" and "is full" in entry.message
    assert library.retry(entry.document_id).state == "reading"
    assert library.wait(entry.document_id).state == "read"


def test_removing_a_document_makes_room(library, small_disk, tmp_path):
    entry = library.wait(library.add(book(tmp_path, "book.txt", 400_000)).document_id)
    assert entry.state == "read"
    with filled(small_disk):
        library.remove(entry.document_id)
        assert library.entries() == []
        assert os.statvfs(small_disk).f_bavail * 4096 > 300_000
        assert library.wait(library.add(book(tmp_path, "small.txt", 1000)).document_id).state == "read"
