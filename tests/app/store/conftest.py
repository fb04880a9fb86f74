"""A database in a folder of its own, and the conversations and documents in it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.library import Document, DocumentPage
from app.store.conversation_store import ConversationStore
from app.store.database import Database
from app.store.document_store import DocumentStore


@pytest.fixture
def database(tmp_path) -> Iterator[Database]:
    database = Database.open(tmp_path / "data")
    yield database
    database.close()


@pytest.fixture
def conversations(database) -> ConversationStore:
    return ConversationStore(database)


@pytest.fixture
def documents(database) -> DocumentStore:
    return DocumentStore(database)


def add_read_document(documents: DocumentStore, document_id: str, name: str, *page_texts: str) -> None:
    """Add a document that was never a file, with its text."""
    documents.add(document_id, name, name, ".txt", 100)
    pages = tuple(DocumentPage(index, str(index + 1), text) for index, text in enumerate(page_texts))
    assert documents.set_read(document_id, Document(document_id, name, Path(name), pages))


@pytest.fixture
def add_document(documents) -> Callable[..., None]:
    """Return `add_document(document_id, name, *page_texts)`."""
    return lambda document_id, name, *page_texts: add_read_document(documents, document_id, name, *page_texts)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A disk of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("there is no mount")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)
