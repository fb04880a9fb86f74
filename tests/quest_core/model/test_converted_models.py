"""Converted models: made by one process, made again where damaged, and nothing is left of an interrupted one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from quest_core.model import converted_models
from quest_core.model.converted_models import MANIFEST, find_or_make, is_whole

ROOT = Path(__file__).parents[3]


def make(folder: Path) -> None:
    (folder / "config.json").write_text('{"a": 1}')
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 40)


@pytest.fixture
def folder(tmp_path) -> Path:
    return find_or_make(tmp_path / "cache" / "model", make)


def write_in_place(path: Path, content: bytes) -> None:
    """Change a file and keep its time, as a failing disk does."""
    found = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def damages(folder: Path) -> dict[str, object]:
    config, weights = folder / "config.json", folder / "model.safetensors"
    return {
        "a truncated file": lambda: weights.write_bytes(weights.read_bytes()[:100]),
        "an empty file": lambda: weights.write_bytes(b""),
        "a missing file": weights.unlink,
        "a changed small file": lambda: write_in_place(config, b'{"a": 2}'),
        "a changed large file": lambda: weights.write_bytes(bytes(256 * 40)),
        "no manifest": (folder / MANIFEST).unlink,
        "an empty manifest": lambda: (folder / MANIFEST).write_text(""),
        "a manifest of nothing": lambda: (folder / MANIFEST).write_text('{"files": {}}'),
        "a manifest of something else": lambda: (folder / MANIFEST).write_text('{"files": [7]}'),
        "a folder in a file's place": lambda: (config.unlink(), config.mkdir()),
    }


@pytest.mark.parametrize("damage", damages(Path()))
def test_a_damaged_folder_is_made_again(folder, monkeypatch, damage):
    monkeypatch.setattr(converted_models, "ALWAYS_HASHED_BYTES", 1000)
    made = []
    assert find_or_make(folder, pytest.fail, on_make=pytest.fail) == folder
    damages(folder)[damage]()
    assert not is_whole(folder)
    find_or_make(folder, make, on_make=lambda: made.append(damage))
    assert made == [damage]
    assert is_whole(folder)
    assert (folder / "config.json").read_text() == '{"a": 1}'


def test_large_files_are_hashed_where_their_time_has_changed(folder, monkeypatch):
    monkeypatch.setattr(converted_models, "ALWAYS_HASHED_BYTES", 1000)
    hashed = []
    hash_of = converted_models._hash
    monkeypatch.setattr(converted_models, "_hash", lambda path: hashed.append(path.name) or hash_of(path))
    assert is_whole(folder)
    assert hashed == ["config.json"]
    os.utime(folder / "model.safetensors")
    assert is_whole(folder)
    assert hashed[1:] == ["config.json", "model.safetensors"]
    # Once: the manifest has the new time.
    assert is_whole(folder)
    assert hashed[3:] == ["config.json"]
    assert json.loads((folder / MANIFEST).read_text())["files"].keys() == {"config.json", "model.safetensors"}


def test_a_failed_one_leaves_nothing_behind(tmp_path):
    def fail(folder):
        make(folder)
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        find_or_make(tmp_path / "cache" / "model", fail)
    assert [each.name for each in (tmp_path / "cache").iterdir()] == ["model.lock"]


def test_what_a_killed_process_left_is_removed(tmp_path):
    script = f"""
import sys, time
from pathlib import Path
from quest_core.model.converted_models import find_or_make

def make(folder):
    (folder / "model.safetensors").write_bytes(bytes(1000))
    print("begun", flush=True)
    time.sleep(600)

find_or_make(Path({str(tmp_path)!r}) / sys.argv[1], make)
"""
    processes = []
    for name in ("model", "another"):
        process = subprocess.Popen([sys.executable, "-c", script, name], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline() == "begun\n"
    # What a living process is at work on stays.
    assert len(list(tmp_path.glob("*.partial/model.safetensors"))) == 2
    for process in processes:
        process.kill()
        process.wait()
    find_or_make(tmp_path / "model", make, on_wait=pytest.fail)
    assert not list(tmp_path.glob("*.partial"))
    assert is_whole(tmp_path / "model")


@pytest.mark.slow
def test_two_processes_convert_one_file_once(tmp_path, write_gguf):
    pytest.importorskip("gguf")
    path = write_gguf(tmp_path / "model.gguf")
    script = f"""
import sys, time
from pathlib import Path
from quest_core.model import gguf_conversion, model_source

write_folder = gguf_conversion._write_folder
def slowly(parts, folder):
    print("converting", flush=True)
    time.sleep(1.0)
    write_folder(parts, folder)
gguf_conversion._write_folder = slowly
print("ready", flush=True)
sys.stdin.readline()
folder = model_source.find_model({str(path)!r}, Path({str(tmp_path / "cache")!r}), on_progress=print)[1]
print((folder / "config.json").is_file(), folder.name, flush=True)
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"OMP_WAIT_POLICY": "passive"},
        )
        for _ in range(2)
    ]  # fmt: skip
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=120)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted("converting" in lines for lines in outputs) == [False, True]
    loser = min(outputs, key=len)
    assert loser[0] == "Waiting for another process that converts model"
    assert outputs[0][-1] == outputs[1][-1] and outputs[0][-1].startswith("True")
