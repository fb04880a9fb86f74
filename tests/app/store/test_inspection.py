"""`doctor --verify`: what is damaged is named; what can be made again is removed, and nothing else."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from app.library.library import Library
from app.store.database import DATABASE_NAME, Database
from app.store.folder_lock import FolderLock
from app.store.inspection import storage_sizes, verify_storage
from quest_core.model.converted_models import find_or_make


@pytest.fixture
def data_dir(tmp_path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def books(data_dir, tmp_path) -> dict[str, Path]:
    """A library of two books, closed; their files by name."""
    kept = {}
    with closing(Database.open(data_dir)) as database, closing(Library(data_dir, database)) as library:
        for name in ("one.txt", "two.txt"):
            (tmp_path / name).write_text(f"The harbour of {name}.")
            entry = library.wait(library.add(tmp_path / name).document_id, 60)
            kept[name] = library.document(entry.document_id).path
    return kept


def verified(data_dir: Path) -> list[tuple[str, bool]]:
    return [(fault.message, fault.is_repaired) for fault in verify_storage(data_dir)]


def test_nothing_is_wrong_with_a_whole_folder_or_none(data_dir, books, tmp_path):
    assert verified(data_dir) == [] and verified(tmp_path / "none") == []
    assert not (tmp_path / "none").exists()
    assert FolderLock.holder(data_dir) is None


def test_a_damaged_document_is_put_aside_and_comes_back(data_dir, books, tmp_path):
    path = books["one.txt"]
    path.write_text("The harbour of flipped bits.")
    ((message, is_repaired),) = verified(data_dir)
    assert 'The file of "one.txt" is damaged' in message and "Add the document again" in message and not is_repaired
    assert not path.exists() and path.with_name(path.name + ".damaged").exists()
    ((message, _),) = verified(data_dir)
    assert 'The file of "one.txt" is gone' in message
    with closing(Database.open(data_dir)) as database, closing(Library(data_dir, database)) as library:
        library.add(tmp_path / "one.txt")
    assert verified(data_dir) == []


def test_a_document_in_no_list_is_told_of(data_dir, books):
    for path in data_dir.glob(f"{DATABASE_NAME}*"):
        path.unlink()
    told = verified(data_dir)
    assert len(told) == 2 and all("next start takes it" in message and is_repaired for message, is_repaired in told)


def test_a_damaged_database_is_put_aside(data_dir, books):
    path = data_dir / DATABASE_NAME
    content = path.read_bytes()
    path.write_bytes(b"\xa5" * len(content))
    told = verified(data_dir)
    assert "put aside" in told[0][0] and told[0][1]
    (aside,) = data_dir.glob("quest-chat.damaged-*")
    assert aside.read_bytes() == b"\xa5" * len(content)
    assert len(told) == 3, "the documents that are in no list now"


def test_a_damaged_index_of_words_is_made_anew(data_dir, books):
    with closing(Database.open(data_dir)) as database, database.writing() as connection:
        connection.exec_driver_sql("UPDATE document_page_words_data SET block = zeroblob(20) WHERE id > 10")
    ((message, is_repaired),) = verified(data_dir)
    assert is_repaired and "2 documents" in message
    with closing(Database.open(data_dir)) as database, closing(Library(data_dir, database)) as library:
        assert len([hit for hit in library.search("harbour") if hit.page_label]) == 2
    assert verified(data_dir) == []


def test_nothing_is_repaired_beside_a_running_server(data_dir, books):
    books["one.txt"].write_text("The harbour of flipped bits.")
    lock = FolderLock.acquire(data_dir, "http://127.0.0.1:7860")
    told = verified(data_dir)
    lock.release()
    assert "http://127.0.0.1:7860" in told[0][0] and 'The file of "one.txt" is damaged' in told[1][0]
    assert books["one.txt"].exists()


def test_a_damaged_model_is_told_of(data_dir):
    def make(folder):
        (folder / "model.safetensors").write_bytes(b"numbers")

    find_or_make(data_dir / "models" / "smol", make)
    assert verified(data_dir) == []
    (data_dir / "models" / "smol" / "model.safetensors").write_bytes(b"Numbers")
    ((message, _),) = verified(data_dir)
    assert "smol is damaged; it is converted again" in message


def test_sizes(data_dir, books, tmp_path):
    for name, size in (("snapshots/not-a-model/x", 0), ("models/smol/model.safetensors", 3000)):
        path = data_dir / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x" * size)
    lock = FolderLock.acquire(data_dir, "http://127.0.0.1:7860")
    sizes = storage_sizes(data_dir)
    assert (sizes.document_count, sizes.documents) == (2, sum(path.stat().st_size for path in books.values()))
    assert sizes.database >= (data_dir / DATABASE_NAME).stat().st_size and sizes.database_copies == 0
    assert sizes.models == {"smol": 3000}
    assert sizes.holder.address == "http://127.0.0.1:7860"
    lock.release()
    figures = storage_sizes(data_dir).to_json()
    assert figures["documents"] == 2 and figures["used_by"] is None and figures["models_bytes"] == {"smol": 3000}
    nothing = storage_sizes(tmp_path / "none")
    assert (nothing.documents, nothing.database, nothing.models, nothing.holder) == (0, 0, {}, None)
