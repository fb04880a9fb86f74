"""Documents in the library: added, read in the background, found again after a restart, and removed with everything."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.errors import UserFacingError
from app.library import DocumentError, EmptyDocumentError, UnsupportedFormatError
from app.library import library as library_module
from app.library.library import Library
from app.library.reader import ReadingStopped
from app.store.conversation_store import ConversationStore
from app.store.data_folder import StorageError, StorageFull
from app.store.database import DATABASE_NAME, Database

ROOT = Path(__file__).parents[3]
WAIT_S = 60


@pytest.fixture
def data_dir(tmp_path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def open_library(data_dir) -> Iterator[Callable[..., Library]]:
    """Return `open_library(read_only=False, on_change=...)`, which opens the library as another start would."""
    opened = []

    def open_one(read_only: bool = False, on_change: Callable[[], None] = lambda: None) -> Library:
        database = Database.open(data_dir, read_only=read_only)
        library = Library(data_dir, database, on_change)
        opened.extend([library, database])
        return library

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture
def library(open_library) -> Library:
    return open_library()


@pytest.fixture
def text_path(tmp_path) -> Path:
    path = tmp_path / "harbour.txt"
    path.write_text("The harbour lay still.\fThe lighthouse keeper had left.", encoding="utf-8")
    return path


def files_in(data_dir: Path) -> list[str]:
    return sorted(path.name for path in (data_dir / "documents").glob("*"))


def test_a_document_is_kept_and_read(library, text_path, data_dir, open_library):
    changes = []
    library = open_library(on_change=lambda: changes.append(1))
    added = library.add(text_path)
    assert (added.name, added.file_name, added.file_bytes) == ("harbour.txt", "harbour.txt", text_path.stat().st_size)
    read = library.wait(added.document_id, WAIT_S)
    assert (read.state, read.page_count, read.progress, read.message) == ("read", 2, None, "")
    assert len(changes) >= 2
    document = library.document(added.document_id)
    texts = [page.text for page in document.document_pages]
    assert texts == ["The harbour lay still.", "The lighthouse keeper had left."]
    assert document.name == document.shown_name == "harbour.txt" and document.title == ""
    assert document.path == data_dir / "documents" / f"{added.document_id}.txt"
    assert document.path.read_bytes() == text_path.read_bytes()
    assert library.document(added.document_id) is document
    text_path.unlink()
    again = open_library()
    assert again.entry(added.document_id) == read
    assert again.document(added.document_id) == document


def test_the_same_bytes_are_one_document(library, text_path, tmp_path):
    first = library.wait(library.add(text_path).document_id, WAIT_S)
    twin = shutil.copy(text_path, tmp_path / "twin.txt")
    second = library.add(Path(twin))
    assert second.document_id == first.document_id and second.name == "harbour.txt" and second.state == "read"
    assert second.last_used_at > first.last_used_at
    assert len(library.entries()) == 1


def test_a_taken_file_is_gone(library, text_path, data_dir, tmp_path):
    twin = Path(shutil.copy(text_path, tmp_path / "twin.txt"))
    entry = library.add(text_path, name="My harbour.txt", take=True)
    assert not text_path.exists() and files_in(data_dir) == [f"{entry.document_id}.txt"]
    assert entry.name == "My harbour.txt"
    library.add(twin, take=True)
    assert not twin.exists()
    assert library.wait(entry.document_id, WAIT_S).state == "read"


def test_what_cannot_be_kept_is_not_taken_away(library, text_path, data_dir, monkeypatch):
    content = text_path.read_bytes()

    def refuse(*_):
        raise StorageFull("The disk is full.")

    monkeypatch.setattr(library._own, "add", refuse)
    for take in (True, False):
        with pytest.raises(StorageFull):
            library.add(text_path, take=take)
        assert text_path.read_bytes() == content and files_in(data_dir) == []


def test_a_linked_file_is_copied(library, text_path, tmp_path, data_dir):
    link = tmp_path / "link.txt"
    link.symlink_to(text_path)
    entry = library.add(link, take=True)
    assert text_path.is_file() and not link.is_symlink()
    assert not (data_dir / "documents" / f"{entry.document_id}.txt").is_symlink()


@pytest.mark.parametrize(
    ("name", "content", "error_class"),
    [
        ("gone.txt", None, DocumentError),
        ("blank.txt", b"", EmptyDocumentError),
        ("photo.jpg", b"\xff\xd8\xff\xe0" + b"x" * 50, UnsupportedFormatError),
    ],
)
def test_what_is_no_document_is_refused_at_once(library, tmp_path, data_dir, name, content, error_class):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error_class):
        library.add(tmp_path / name)
    assert library.entries() == [] and files_in(data_dir) == []


def test_a_damaged_document_fails_by_its_name(library, tmp_path):
    (tmp_path / "upload-17.pdf").write_bytes(b"%PDF-1.4\nnothing more")
    entry = library.add(tmp_path / "upload-17.pdf", name="My book.pdf")
    failed = library.wait(entry.document_id, WAIT_S)
    assert failed.state == "failed" and '"My book.pdf"' in failed.message and entry.document_id not in failed.message
    with pytest.raises(UserFacingError, match="My book.pdf"):
        library.document(entry.document_id)
    assert library.retry(entry.document_id).state == "reading"
    assert library.wait(entry.document_id, WAIT_S).state == "failed"


def test_a_locked_document_is_unlocked_and_its_password_forgotten(library, make_pdf, data_dir, open_library):
    path = make_pdf([["Secret words."]], password="open sesame", name="locked.pdf")
    entry = library.wait(library.add(path).document_id, WAIT_S)
    assert entry.state == "locked" and '"locked.pdf"' in entry.message
    with pytest.raises(UserFacingError, match="password"):
        library.document(entry.document_id)
    library.unlock(entry.document_id, "wrong")
    assert library.wait(entry.document_id, WAIT_S).state == "locked"
    library.unlock(entry.document_id, "open sesame")
    assert library.wait(entry.document_id, WAIT_S).state == "read"
    again = open_library()
    assert again.document(entry.document_id).document_pages[0].text == "Secret words."
    again.remove(entry.document_id)
    library.close()
    again.close()
    for file in data_dir.rglob("*"):
        assert not file.is_file() or b"sesame" not in file.read_bytes()


def test_a_password_can_be_given_at_once(library, make_pdf):
    path = make_pdf([["Secret words."]], password="open sesame", name="locked.pdf")
    assert library.wait(library.add(path, password="open sesame").document_id, WAIT_S).state == "read"


def test_progress_is_told(open_library, make_pdf):
    seen = []
    library = open_library(on_change=lambda: seen.append([entry.progress for entry in library.entries()]))
    entry = library.add(make_pdf([[f"Page {number}."] for number in range(300)]))
    assert library.wait(entry.document_id, WAIT_S).page_count == 300
    shares = [progress for entries in seen for progress in entries if progress is not None]
    assert shares and all(0 < share <= 1 for share in shares) and shares == sorted(shares)


def test_a_new_name_is_shown_and_the_model_is_told_the_old_one(library, text_path):
    entry = library.wait(library.add(text_path).document_id, WAIT_S)
    library.rename(entry.document_id, " My\nharbour\u202e ")
    assert library.entry(entry.document_id).name == "My harbour"
    document = library.document(entry.document_id)
    assert (document.name, document.title, document.shown_name) == ("harbour.txt", "My harbour", "My harbour")
    assert [hit.name for hit in library.search("harbour")] == ["My harbour", "My harbour"]
    with pytest.raises(UserFacingError, match="cannot be empty"):
        library.rename(entry.document_id, "\n")
    with pytest.raises(UserFacingError, match="not in the library"):
        library.rename("f" * 32, "x")


@pytest.mark.parametrize(
    "name", ["line\nbreak.txt", "\u202etxt.exe.txt", "x" * 300 + ".txt", "..", "", "/", "'; DROP TABLE turns;--.txt"]
)
def test_hostile_names_are_kept_harmlessly(library, text_path, data_dir, name):
    entry = library.wait(library.add(text_path, name=name).document_id, WAIT_S)
    assert entry.state == "read" and entry.name and len(entry.name) <= 200
    assert not set(entry.name) & {"\n", "\u202e", "/"}
    assert files_in(data_dir) == [f"{entry.document_id}.txt"]


def test_a_removed_document_leaves_nothing(library, text_path, data_dir):
    entry = library.wait(library.add(text_path).document_id, WAIT_S)
    conversations = ConversationStore(library._own._database)
    conversation_id = conversations.create()
    conversations.set_documents(conversation_id, [(entry.document_id, True)])
    library.set_tokens(entry.document_id, "a model", 12, True)
    snapshots = data_dir / "snapshots"
    library.remove(entry.document_id)
    assert library.entries() == [] and library.search("harbour") == [] and files_in(data_dir) == []
    assert conversations.find(conversation_id).documents == ()
    assert library.tokens(entry.document_id, "a model") is None and not snapshots.exists()
    with pytest.raises(UserFacingError, match="not in the library"):
        library.document(entry.document_id)
    library.remove(entry.document_id)
    # And it can be added anew.
    assert library.wait(library.add(text_path).document_id, WAIT_S).state == "read"


def test_a_document_that_is_removed_while_its_text_is_fetched_is_not_remembered_without_pages(
    library, text_path, monkeypatch
):
    document_id = library.wait(library.add(text_path).document_id, WAIT_S).document_id
    pages_of = library._own.pages

    def pages(asked_id):
        monkeypatch.undo()
        library.remove(document_id)
        return pages_of(asked_id)

    monkeypatch.setattr(library._own, "pages", pages)
    with pytest.raises(UserFacingError, match="not in the library any more"):
        library.document(document_id)
    assert library.wait(library.add(text_path).document_id, WAIT_S).state == "read"
    assert library.document(document_id).page_count == 2


def test_a_text_that_is_replaced_while_it_is_fetched_is_not_remembered(library, text_path, monkeypatch):
    document_id = library.wait(library.add(text_path).document_id, WAIT_S).document_id
    pages_of = library._own.pages

    def pages(asked_id):
        monkeypatch.undo()
        fetched = pages_of(asked_id)
        library.rename(document_id, "Another name")
        return fetched

    monkeypatch.setattr(library._own, "pages", pages)
    assert library.document(document_id).shown_name == "Another name"


def test_tokens_are_kept_by_model(library, text_path, open_library):
    entry = library.add(text_path)
    assert library.tokens(entry.document_id, "a model") is None
    library.set_tokens(entry.document_id, "a model", 12, True)
    library.set_tokens(entry.document_id, "a model", 13, True)
    library.set_tokens(entry.document_id, "another", 20_000, False)
    again = open_library()
    assert again.tokens(entry.document_id, "a model") == (13, True)
    assert again.tokens(entry.document_id, "another") == (20_000, False)


@pytest.fixture
def endless_pipe(monkeypatch, tmp_path) -> threading.Event:
    """Readings do not come to an end before the event is set."""
    go_on = threading.Event()
    read = library_module.read_document

    def read_slowly(path, password=None, on_progress=None, limits=None, stop=None):
        while not go_on.wait(0.01):
            if stop.is_set():
                raise ReadingStopped
        return read(path, password, on_progress, limits, stop)

    monkeypatch.setattr(library_module, "read_document", read_slowly)
    return go_on


def test_a_document_can_be_removed_while_it_is_read_or_waits(library, text_path, tmp_path, endless_pipe, data_dir):
    (tmp_path / "second.txt").write_text("A second one.")
    first, second = library.add(text_path), library.add(tmp_path / "second.txt")
    assert library.wait(first.document_id, timeout_s=0.05).state == "reading"
    with pytest.raises(UserFacingError, match="still being read"):
        library.document(first.document_id)
    library.remove(first.document_id)
    library.remove(second.document_id)
    endless_pipe.set()
    time.sleep(0.1)
    assert library.entries() == [] and files_in(data_dir) == []


def test_what_was_not_read_is_read_after_the_next_start(library, text_path, endless_pipe, open_library):
    entry = library.add(text_path)
    library.close()
    assert library.entry(entry.document_id).state == "reading"
    endless_pipe.set()
    again = open_library()
    again.start()
    assert again.wait(entry.document_id, WAIT_S).state == "read"


def test_a_removal_that_was_broken_off_is_finished_at_the_next_start(library, text_path, data_dir, open_library):
    entry = library.wait(library.add(text_path).document_id, WAIT_S)
    library._own.set_state(entry.document_id, "removing")
    (data_dir / "documents" / "incoming-half").write_bytes(b"half")
    library.close()
    again = open_library()
    assert again.entries() == [] and again.search("harbour") == []
    eventually(lambda: files_in(data_dir) == [] and again._own.ids() == [])


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_documents_outlive_a_lost_database(library, text_path, data_dir, open_library):
    entry = library.wait(library.add(text_path).document_id, WAIT_S)
    (data_dir / "documents" / ("0" * 32 + ".txt")).write_text("not what its name says")
    library.close()
    library._own._database.close()
    for path in data_dir.glob(f"{DATABASE_NAME}*"):
        path.unlink()
    again = open_library()
    again.start()
    eventually(lambda: len(again.entries()) == 1)
    found = again.wait(entry.document_id, WAIT_S)
    assert found.state == "read" and found.name == f"document {entry.document_id[:8]}.txt"
    assert again.search("lighthouse")
    # Whoever adds the file again knows its name, which is then also that in prompts.
    again.add(text_path)
    assert again.entry(entry.document_id).name == text_path.name
    assert again.document(entry.document_id).name == text_path.name


def test_a_name_given_by_hand_stays_when_the_files_own_comes_back(library, text_path, data_dir, open_library):
    entry = library.wait(library.add(text_path).document_id, WAIT_S)
    library._own.set_names(entry.document_id, "by hand", f"document {entry.document_id[:8]}.txt")
    again = library.add(text_path)
    assert (again.name, again.file_name) == ("by hand", text_path.name)


def test_a_file_that_is_gone_is_told_of_and_comes_back_with_the_same_bytes(library, text_path, data_dir):
    entry = library.wait(library.add(text_path).document_id, WAIT_S)
    kept = data_dir / "documents" / f"{entry.document_id}.txt"
    kept.unlink()
    assert library.document(entry.document_id).page_count == 2
    assert library.add(text_path).state == "read" and kept.is_file()


def test_a_failing_listener_or_reader_does_not_end_the_reading(open_library, text_path, monkeypatch):
    read = library_module.read_document

    def fail(*_, **__):
        raise RuntimeError("unforeseen")

    library = open_library(on_change=fail)
    monkeypatch.setattr(library_module, "read_document", fail)
    entry = library.wait(library.add(text_path).document_id, WAIT_S)
    assert entry.state == "failed" and "unforeseen" in entry.message
    monkeypatch.setattr(library_module, "read_document", read)
    library.retry(entry.document_id)
    assert library.wait(entry.document_id, WAIT_S).state == "read"


def test_beside_a_running_server_documents_are_read_and_not_kept(library, text_path, tmp_path, open_library, data_dir):
    kept = library.wait(library.add(text_path).document_id, WAIT_S)
    beside = open_library(read_only=True)
    assert beside.add(text_path).state == "read"
    assert beside.document(kept.document_id).page_count == 2
    (tmp_path / "other.txt").write_text("A lighthouse of another kind.")
    entry = beside.add(tmp_path / "other.txt", take=True)
    assert beside.wait(entry.document_id, WAIT_S).state == "read"
    assert beside.document(entry.document_id).path == tmp_path / "other.txt"
    assert {hit.name for hit in beside.search("lighthouse")} == {"harbour.txt", "other.txt"}
    assert {each.document_id for each in beside.entries()} == {kept.document_id, entry.document_id}
    assert (tmp_path / "other.txt").is_file() and len(files_in(data_dir)) == 1 and len(library.entries()) == 1
    for refused in (lambda: beside.rename(kept.document_id, "x"), lambda: beside.remove(kept.document_id)):
        with pytest.raises(StorageError, match="only read here"):
            refused()
    beside.remove(entry.document_id)
    assert len(beside.entries()) == 1


def test_a_reading_of_another_process_is_waited_for(library, text_path, endless_pipe, open_library):
    entry = library.add(text_path)
    beside = open_library(read_only=True)
    assert beside.wait(entry.document_id, timeout_s=0.01).state == "reading"
    endless_pipe.set()
    assert beside.wait(entry.document_id, WAIT_S).state == "read"


def test_many_threads_add_at_once(library, tmp_path, data_dir):
    paths = []
    for number in range(6):
        path = tmp_path / f"{number}.txt"
        path.write_text(f"Document {number % 3} and no more.")
        paths.append(path)
    errors = []

    def add(path):
        try:
            library.document(library.wait(library.add(path).document_id, WAIT_S).document_id)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=add, args=(path,)) for path in paths * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and len(library.entries()) == len(files_in(data_dir)) == 3


def test_the_plain_data_needs_no_database():
    program = """
import sys
from app.library import LibraryEntry, LibraryHit
from app.store.stored_conversation import ConversationSummary, StoredConversation
assert "sqlalchemy" not in sys.modules and "sqlite3" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
