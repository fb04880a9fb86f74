"""A process that is killed while it adds, reads and removes documents leaves a library that is whole."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from app.library.document_files import DocumentFiles
from app.library.library import Library
from app.store.database import Database

ROOT = Path(__file__).parents[3]
ROUNDS = 8
SEED = 29

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


@pytest.mark.slow
def test_the_library_is_whole_after_each_kill(tmp_path):
    random_times = random.Random(SEED)
    data_dir, sources = tmp_path / "data", tmp_path / "sources"
    sources.mkdir()
    added: dict[str, str] = {}
    with subprocess.Popen(
        [sys.executable, Path(__file__).with_name("adder_process.py"), data_dir, sources],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    ) as adder:
        for seed in range(ROUNDS):
            adder.stdin.write(f"{seed}\n")
            adder.stdin.flush()
            child = int(adder.stdout.readline().split()[1])
            # By what it has done, not by the clock: the machine may be busy.
            for _ in range(random_times.randrange(12)):
                word, document_id = adder.stdout.readline().split()
                added[document_id] = word
            time.sleep(random_times.uniform(0, 0.1))
            os.kill(child, signal.SIGKILL)
            while (line := adder.stdout.readline().split())[0] != "gone":
                added[line[1]] = line[0]
            with closing(Database.open(data_dir)) as database:
                assert database.notice == "" and database.faults() == []
        adder.stdin.close()
    assert "removed" in added.values()
    check(data_dir, added)


def check(data_dir: Path, added: dict[str, str]) -> None:
    with closing(Database.open(data_dir)) as database, closing(Library(data_dir, database)) as library:
        library.start()
        files = DocumentFiles(data_dir / "documents")
        for document_id, last_word in added.items():
            if last_word == "removed":
                assert library.entry_or_none(document_id) is None
            elif last_word == "added":
                assert library.wait(document_id, 60).state == "read"
        kept = dict(files.kept())
        for entry in library.entries():
            assert library.wait(entry.document_id, 60).state == "read"
            assert "round" in library.document(entry.document_id).document_pages[0].text
            assert files.is_whole(entry.document_id, kept.pop(entry.document_id))
        assert kept == {} and not list(files.folder.glob("incoming-*"))
        assert database.faults() == []
