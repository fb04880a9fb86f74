"""The database's file: opened, migrated, refused, put aside, copied; and what its user is told."""

from __future__ import annotations

import random
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from app.store import database_file
from app.store.conversation_store import ConversationStore
from app.store.data_folder import StorageError
from app.store.database import DATABASE_NAME, Database
from app.store.document_store import DocumentStore
from app.store.migrations import MIGRATIONS

ROOT = Path(__file__).parents[3]
KILLED = """
import os, pathlib, sys
from app.store.conversation_store import ConversationStore
from app.store.database import Database
print(ConversationStore(Database.open(pathlib.Path(sys.argv[1]))).create(), flush=True)
os._exit(1)
"""
NEXT = ("ALTER TABLE turns ADD COLUMN stars INTEGER NOT NULL DEFAULT 0",)


def schema(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")}


def fill(data_dir: Path, turns: int = 3, migrations=MIGRATIONS) -> str:
    """A database with a conversation, closed; returns the conversation's id."""
    database = Database.open(data_dir, migrations=migrations)
    conversations = ConversationStore(database)
    conversation_id, parent = conversations.create(), None
    for number in range(turns):
        parent = conversations.begin_turn(conversation_id, parent, f"question {number}")
        conversations.finish_turn(parent, f"lighthouse {number}", {}, (number,))
    database.close()
    return conversation_id


def test_the_file_is_safe_against_power_failures_and_strict(database):
    with database.writing() as connection:
        values = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "auto_vacuum", "secure_delete", "user_version")
        }
    assert values == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "auto_vacuum": 2,
        "secure_delete": 1,
        "user_version": len(MIGRATIONS),
    }


def test_a_transaction_that_fails_leaves_nothing(database, conversations):
    conversation_id = conversations.create()
    with pytest.raises(KeyError), database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM conversations")
        raise KeyError
    assert conversations.last_used() == [conversation_id]


def test_an_older_file_is_migrated_and_a_copy_of_it_kept(tmp_path):
    conversation_id = fill_without_search(tmp_path)
    copy = tmp_path / "quest-chat.version-1.sqlite3"
    assert not copy.exists()
    database = Database.open(tmp_path)
    conversations = ConversationStore(database)
    assert conversations.find(conversation_id).turns[0].answer == "An answer from before."
    # What was there before the search is found by it.
    assert [summary.conversation_id for summary in conversations.summaries("answer before")] == [conversation_id]
    assert database.faults() == [] and database.notice == ""
    database.close()
    assert sum("CREATE VIRTUAL TABLE" in sql for sql in schema(copy)) == 0
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT answer FROM turns").fetchall() == [("An answer from before.",)]
    fresh = Database.open(tmp_path / "fresh")
    fresh.close()
    assert schema(fresh.path) == schema(database.path)


def fill_without_search(data_dir: Path) -> str:
    """A file of version 1; returns its conversation's id."""
    Database.open(data_dir, migrations=MIGRATIONS[:1]).close()
    with closing(sqlite3.connect(data_dir / DATABASE_NAME)) as connection, connection:
        connection.execute(
            "INSERT INTO conversations (number, conversation_id, created_at, updated_at) VALUES (7, ?, 1, 1)",
            ("c" * 32,),
        )
        connection.execute(
            "INSERT INTO turns (turn_id, conversation_number, depth, question, answer, state, created_at) "
            "VALUES (3, 7, 1, 'Q', 'An answer from before.', 'finished', 1)"
        )
        connection.execute("UPDATE conversations SET active_turn_id = 3")
    return "c" * 32


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path):
    fill(tmp_path)
    before = schema(tmp_path / DATABASE_NAME)
    for broken in ("CREATE TABLE more (x)", "this is not SQL"), ("CREATE TABLE more (x)", "SELECT * FROM nothing"):
        with pytest.raises(StorageError, match="cannot be used"):
            Database.open(tmp_path, migrations=(*MIGRATIONS, NEXT, broken))
        assert "stars" in "".join(schema(tmp_path / DATABASE_NAME) - before)
    with pytest.raises(StorageError, match="newer"):
        Database.open(tmp_path)
    Database.open(tmp_path, migrations=(*MIGRATIONS, NEXT)).close()


def test_a_newer_file_is_refused_and_untouched(tmp_path):
    fill(tmp_path, migrations=(*MIGRATIONS, NEXT))
    before = (tmp_path / DATABASE_NAME).read_bytes()
    for read_only in (False, True):
        with pytest.raises(StorageError, match=r"newer Quest Chat \(.* version 4, this one knows 3\).*Update"):
            Database.open(tmp_path, read_only=read_only)
    assert (tmp_path / DATABASE_NAME).read_bytes() == before


def test_another_programs_file_is_refused_and_untouched(tmp_path):
    with closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as connection:
        connection.execute("CREATE TABLE bookmarks (url)")
    with pytest.raises(StorageError, match="not a database of Quest Chat"):
        Database.open(tmp_path)
    assert schema(tmp_path / DATABASE_NAME) == {"CREATE TABLE bookmarks (url)"}


@pytest.mark.parametrize("content", [b"not a database at all, " * 500, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_file_that_is_no_database_is_put_aside(tmp_path, content):
    (tmp_path / DATABASE_NAME).write_bytes(content)
    database = Database.open(tmp_path)
    (aside,) = tmp_path.glob("quest-chat.damaged-*.sqlite3")
    assert aside.read_bytes() == content
    assert str(aside) in database.notice and "Nothing of it could be read" in database.notice
    assert ConversationStore(database).last_used() == []
    database.close()
    database = Database.open(tmp_path)
    assert database.notice == ""
    database.close()


def test_an_empty_file_is_a_new_database(tmp_path):
    (tmp_path / DATABASE_NAME).touch()
    database = Database.open(tmp_path)
    assert database.notice == "" and ConversationStore(database).create()
    database.close()


def damage(path: Path, table: str) -> None:
    """Overwrite a page in the middle of a table."""
    with closing(sqlite3.connect(path)) as connection:
        pages = [
            number
            for (number,) in connection.execute(
                "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' ORDER BY pageno", (table,)
            )
        ]
    with path.open("rb+") as file:
        file.seek((pages[len(pages) // 2] - 1) * 4096)
        file.write(b"\xa5" * 4096)


def test_what_can_be_read_of_a_damaged_file_is_taken_over(tmp_path):
    conversation_id = fill(tmp_path, turns=400)
    damage(tmp_path / DATABASE_NAME, "turns")
    database = Database.open(tmp_path)
    assert "put aside" in database.notice and "1 conversations" in database.notice
    assert database.faults() == []
    conversations = ConversationStore(database)
    turns = conversations.find(conversation_id).turns
    assert turns[-1].answer == "lighthouse 399" and 300 < len(turns) < 400
    assert conversations.summaries("lighthouse 399")
    # And it goes on.
    conversations.begin_turn(conversation_id, turns[-1].turn_id, "more")
    database.close()
    assert len(list(tmp_path.glob("quest-chat.damaged-*.sqlite3"))) == 1


def test_damage_that_is_met_later_is_told_and_mended_at_the_next_start(tmp_path, monkeypatch):
    conversation_id = fill(tmp_path, turns=400)
    damage(tmp_path / DATABASE_NAME, "turns")
    # As if the file were too large to be looked through at each start.
    monkeypatch.setattr(database_file, "_CHECKED_BYTES", 0)
    database = Database.open(tmp_path)
    assert database.notice == ""
    with pytest.raises(StorageError, match="is damaged. Start Quest Chat anew"):
        ConversationStore(database).find(conversation_id)
    database.close()
    database = Database.open(tmp_path)
    assert "put aside" in database.notice
    assert ConversationStore(database).find(conversation_id).turns
    database.close()
    database = Database.open(tmp_path)
    assert database.notice == ""
    database.close()


def test_tables_that_lost_a_column_are_mended_at_the_next_start(tmp_path):
    conversation_id = fill(tmp_path)
    path = tmp_path / DATABASE_NAME
    path.write_bytes(path.read_bytes().replace(b"unanswered TEXT", b"unanswexed TEXT"))
    database = Database.open(tmp_path)
    with pytest.raises(StorageError, match="Start Quest Chat anew"):
        ConversationStore(database).find(conversation_id)
    database.close()
    database = Database.open(tmp_path)
    assert "put aside" in database.notice
    assert len(ConversationStore(database).find(conversation_id).turns) == 3
    assert database.faults() == []
    database.close()


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bits_never_meet_the_user_as_anything_but_a_sentence(tmp_path, seed):
    fill(tmp_path / "whole", turns=40)
    content = (tmp_path / "whole" / DATABASE_NAME).read_bytes()
    chances = random.Random(seed)
    for number in range(12):
        folder = tmp_path / str(number)
        folder.mkdir()
        damaged = bytearray(content)
        for _ in range(chances.choice((1, 3, 30))):
            damaged[chances.randrange(len(damaged))] ^= 1 << chances.randrange(8)
        (folder / DATABASE_NAME).write_bytes(damaged)
        try:
            database = Database.open(folder)
        except StorageError:
            assert (folder / DATABASE_NAME).read_bytes() == damaged
            continue
        if database.notice:
            assert database.faults() == []
            assert next(folder.glob("*.damaged-*.sqlite3")).read_bytes() == damaged
        try:
            conversations = ConversationStore(database)
            for conversation_id in conversations.last_used():
                conversations.find(conversation_id)
            conversations.summaries("lighthouse")
            conversations.create()
        except StorageError:
            assert not database.notice
        database.close()


def test_a_reader_tells_damage_and_leaves_it(tmp_path):
    (tmp_path / DATABASE_NAME).write_bytes(b"not a database at all, " * 500)
    database = Database.open(tmp_path, read_only=True)
    assert "is damaged" in database.notice
    assert ConversationStore(database).last_used() == []
    database.close()
    assert not list(tmp_path.glob("quest-chat.damaged-*"))


def test_an_end_between_putting_aside_and_replacing_is_made_good(tmp_path):
    conversation_id = fill(tmp_path)
    (tmp_path / DATABASE_NAME).rename(tmp_path / (DATABASE_NAME + ".new"))
    log = tmp_path / (DATABASE_NAME + "-wal")
    log.write_bytes(b"of the damaged one")
    database = Database.open(tmp_path)
    assert ConversationStore(database).last_used() == [conversation_id]
    database.close()
    (aside,) = tmp_path.glob("quest-chat.damaged-*-wal")
    assert aside.read_bytes() == b"of the damaged one"


@pytest.mark.parametrize("calls_before", range(6))
def test_an_end_in_the_middle_of_mending_loses_nothing(tmp_path, monkeypatch, calls_before):
    conversation_id = fill(tmp_path, turns=150)
    damage(tmp_path / DATABASE_NAME, "turns")
    replace, calls = database_file.os.replace, []

    def replace_until_the_end(old, new):
        if len(calls) >= calls_before:
            raise KeyboardInterrupt
        calls.append(old)
        replace(old, new)

    with monkeypatch.context() as patched:
        patched.setattr(database_file.os, "replace", replace_until_the_end)
        try:
            Database.open(tmp_path).close()
        except KeyboardInterrupt:
            pass
    database = Database.open(tmp_path)
    assert ConversationStore(database).find(conversation_id).turns[-1].answer == "lighthouse 149"
    assert database.faults() == []
    database.close()
    assert list(tmp_path.glob("quest-chat.damaged-*.sqlite3"))


def test_one_writes_and_others_read(tmp_path, database, conversations):
    reader = Database.open(database.path.parent, read_only=True)
    read = ConversationStore(reader)
    assert read.last_used() == []
    conversation_id = conversations.create()
    assert read.last_used() == [conversation_id]
    with pytest.raises(StorageError, match="only read here"):
        read.create()
    with pytest.raises(StorageError, match="cannot be written"), reader._transaction("BEGIN") as connection:
        connection.exec_driver_sql("DELETE FROM conversations")
    reader.close()
    with pytest.raises(StorageError, match="closing"):
        read.last_used()


def test_reading_a_folder_without_a_database_changes_nothing(tmp_path):
    for folder in (tmp_path / "none", tmp_path):
        database = Database.open(folder, read_only=True)
        assert ConversationStore(database).last_used() == [] and DocumentStore(database).entries() == []
        private = database.path.parent
        database.close()
        assert not private.exists()
    assert list(tmp_path.iterdir()) == []


def test_an_older_file_is_read_without_being_changed(tmp_path):
    conversation_id = fill_without_search(tmp_path)
    before = (tmp_path / DATABASE_NAME).read_bytes()
    database = Database.open(tmp_path, read_only=True)
    assert ConversationStore(database).summaries("from before")[0].conversation_id == conversation_id
    database.close()
    assert (tmp_path / DATABASE_NAME).read_bytes() == before
    assert not list(tmp_path.glob("quest-chat.version-*"))


@pytest.fixture
def read_only_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "none", folder], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"a disk cannot be mounted: {mounted.stderr.strip()}")

    def protect() -> Path:
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        return folder

    yield folder, protect
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.skipif(shutil.which("mount") is None, reason="there is no mount")
@pytest.mark.parametrize("closed", [True, False])
def test_a_read_only_folder_is_read_and_told_of(read_only_disk, closed):
    folder, protect = read_only_disk
    conversation_id = fill(folder)
    if not closed:
        # As a killed process leaves it: the last transactions are in the log.
        killed = subprocess.run([sys.executable, "-c", KILLED, folder], cwd=ROOT, capture_output=True, text=True)
        conversation_id = killed.stdout.strip()
        assert (folder / (DATABASE_NAME + "-wal")).stat().st_size > 0
    protect()
    with pytest.raises(StorageError, match="cannot be written"):
        ConversationStore(Database.open(folder)).create()
    reader = Database.open(folder, read_only=True)
    assert ConversationStore(reader).last_used()[0] == conversation_id
    assert reader.faults() == []
    reader.close()


def test_a_folder_that_is_a_file_is_told_of(tmp_path):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(StorageError, match="cannot be written"):
        Database.open(tmp_path / "data")


def test_opening_needs_no_sqlalchemy(tmp_path):
    program = f"""
import sys
from pathlib import Path
from app.library.library import Library
from app.store.conversation_store import ConversationStore
from app.store.database import Database
database = Database.open(Path({str(tmp_path)!r}))
library, conversations = Library(Path({str(tmp_path)!r}), database), ConversationStore(database)
conversations.recover()
conversations.purge_deleted(3600)
assert "sqlalchemy" not in sys.modules
conversations.create()
assert "sqlalchemy" in sys.modules
library.close()
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_conversations_are_their_owners_to_read(database):
    if sys.platform == "win32":
        pytest.skip("Windows has other rights")
    assert stat.S_IMODE(database.path.stat().st_mode) == 0o600
