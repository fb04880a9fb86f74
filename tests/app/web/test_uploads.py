"""The folders of uploads: whose they are, and when they go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.web.uploads import UploadFolder

ROOT = Path(__file__).resolve().parents[3]
SERVER = """
import sys, pathlib
from app.web.uploads import UploadFolder
folder = UploadFolder.open(pathlib.Path(sys.argv[1]))
(folder.new_folder() / "book.txt").write_text("text")
print(folder.root, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other_server(tmp_path):
    """Another process with a folder in the same place, and that folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, tmp_path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process, Path(process.stdout.readline().strip())
    process.kill()
    process.communicate()


def test_what_a_killed_server_has_left_goes_at_the_next_start(tmp_path, other_server):
    process, its_root = other_server
    # What earlier versions left there.
    (tmp_path / "tmpleft").write_text("half an upload")
    (tmp_path / ("0" * 64)).mkdir()
    (tmp_path / ("0" * 64) / "book.txt").write_text("text")
    first = UploadFolder.open(tmp_path)
    assert len(list(its_root.rglob("book.txt"))) == 1
    process.send_signal(signal.SIGKILL)
    process.wait()
    second = UploadFolder.open(tmp_path)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {first.root.name, second.root.name}
    first.close()
    second.close()
    assert all(path.suffix == ".lock" for path in tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError):
        UploadFolder.open(tmp_path / "uploads")
