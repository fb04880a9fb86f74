"""One process writes in a data folder; who has it is told, and a killed one does not keep it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.store.data_folder import StorageError
from app.store.folder_lock import FolderInUse, FolderLock, LockHolder

ROOT = Path(__file__).parents[3]
HOLDER = """
import pathlib, sys
from app.store.folder_lock import FolderLock
lock = FolderLock.acquire(pathlib.Path(sys.argv[1]), "http://127.0.0.1:7861")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that has the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path / "data"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_told_who_has_it(tmp_path, holder):
    data_dir = tmp_path / "data"
    with pytest.raises(FolderInUse) as raised:
        FolderLock.acquire(data_dir, "http://127.0.0.1:7862")
    assert raised.value.holder == LockHolder(holder.pid, "http://127.0.0.1:7861")
    for part in (f"process {holder.pid}", str(data_dir), "open at http://127.0.0.1:7861", "--data-dir"):
        assert part in raised.value.message
    assert FolderLock.holder(data_dir) == LockHolder(holder.pid, "http://127.0.0.1:7861")


def test_a_killed_process_does_not_keep_it(tmp_path, holder):
    data_dir = tmp_path / "data"
    holder.kill()
    holder.wait()
    assert FolderLock.holder(data_dir) is None
    lock = FolderLock.acquire(data_dir, "http://127.0.0.1:7862")
    assert FolderLock.holder(data_dir) == LockHolder(os.getpid(), "http://127.0.0.1:7862")
    lock.release()
    lock.release()
    assert FolderLock.holder(data_dir) is None


def test_the_same_process_gets_it_once(tmp_path):
    lock = FolderLock.acquire(tmp_path)
    with pytest.raises(FolderInUse, match=r"Wait for it, stop it first, or choose another"):
        FolderLock.acquire(tmp_path)
    lock.release()
    FolderLock.acquire(tmp_path).release()


def test_the_holders_note_may_be_missing_or_nonsense(tmp_path):
    lock = FolderLock.acquire(tmp_path)
    for note in (b"", b"{}", b"[1]", b'{"process_id": "x", "address": 3}', b"\xff"):
        (tmp_path / "in-use.json").write_bytes(note)
        assert FolderLock.holder(tmp_path) == LockHolder()
        with pytest.raises(FolderInUse, match="Another Quest Chat uses"):
            FolderLock.acquire(tmp_path)
    lock.release()


def test_asking_for_the_holder_makes_nothing(tmp_path):
    assert FolderLock.holder(tmp_path / "none") is None
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told_of(tmp_path):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(StorageError, match="cannot be written"):
        FolderLock.acquire(tmp_path / "data")
