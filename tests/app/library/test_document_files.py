"""The library's files: whole or not there, and told from what is not theirs."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from app.library import document_files
from app.library.document_files import DocumentFiles, suffix_of
from app.library.reader import content_id


@pytest.fixture
def files(tmp_path) -> DocumentFiles:
    return DocumentFiles(tmp_path / "documents")


@pytest.fixture
def source(tmp_path) -> Path:
    path = tmp_path / "book.txt"
    path.write_bytes(b"words" * 1_000_000)
    return path


@pytest.mark.parametrize("take", [False, True])
def test_a_file_is_kept_by_its_content(files, source, take):
    content = source.read_bytes()
    document_id = files.keep(source, ".txt", take)
    assert files.path(document_id, ".txt").read_bytes() == content
    assert document_id == content_id(files.path(document_id, ".txt")) and len(document_id) == 32
    assert source.exists() == (not take)
    assert list(files.kept()) == [(document_id, ".txt")] and files.is_whole(document_id, ".txt")
    files.forget(document_id, ".txt")
    files.forget(document_id, ".txt")
    assert list(files.kept()) == []


def test_a_file_on_another_disk_is_copied_and_then_taken(files, source, monkeypatch):
    replace = os.replace

    def replace_within_a_folder(old, new):
        if Path(old).parent != Path(new).parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        replace(old, new)

    monkeypatch.setattr(document_files.os, "replace", replace_within_a_folder)
    document_id = files.keep(source, ".txt", take=True)
    assert files.is_whole(document_id, ".txt") and not source.exists()


@pytest.mark.parametrize("take", [False, True])
def test_what_fails_leaves_all_as_it_was(files, source, take, monkeypatch):
    def fail(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(document_files, "_write_through", fail)
    with pytest.raises(OSError, match="No space left"):
        files.keep(source, ".txt", take)
    assert source.stat().st_size == 5_000_000 and list(files.folder.iterdir()) == []


def test_a_changed_file_is_not_whole(files, source):
    document_id = files.keep(source, ".txt", take=False)
    with files.path(document_id, ".txt").open("rb+") as file:
        file.seek(2_500_000)
        file.write(b"W")
    assert not files.is_whole(document_id, ".txt")


def test_other_files_are_not_taken_for_documents(files, source, tmp_path):
    document_id = files.keep(source, "", take=False)
    (files.folder / "notes.txt").write_text("mine")
    (files.folder / f"{document_id}.txt.damaged").write_text("once")
    (files.folder / ("a" * 32 + ".txt")).symlink_to(source)
    (files.folder / ("b" * 32 + ".txt")).mkdir()
    (files.folder / "incoming-xyz").write_text("half")
    assert list(files.kept()) == [(document_id, "")]
    files.clear_partial()
    assert (files.folder / "notes.txt").exists() and not (files.folder / "incoming-xyz").exists()


@pytest.mark.parametrize(
    ("names", "suffix"),
    [
        (("book.PDF",), ".pdf"),
        (("upload", "book.epub"), ".epub"),
        (("a.b/c",), ""),
        (("book.p\nf",), ""),
        (("book.../etc",), ""),
        (("x." + "y" * 11,), ""),
        ((".txt",), ""),
    ],
)
def test_endings(names, suffix):
    assert suffix_of(*names) == suffix
