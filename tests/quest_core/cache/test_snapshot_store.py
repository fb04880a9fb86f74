"""The writer: what it does when it cannot write, when room is short, and when others are in a hurry."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from quest_core.cache import snapshot_writer
from quest_core.cache.prefixes import Prefix, Segment, plan_segments
from quest_core.cache.snapshot_files import (
    ABOUT,
    SnapshotFault,
    forget_snapshots,
    open_regular,
    read_header,
    sized_files,
    snapshot_bytes_of,
    snapshot_models,
    verify_snapshots,
)
from quest_core.cache.snapshot_store import SnapshotStore
from quest_core.engine import Engine
from quest_core.jobs import Cancellation


class Pages:
    """In the place of a `PageTransfer`: one byte for each token of 16-token pages, whose number it is."""

    page_size = 16

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.written: dict[int, bytes] = {}

    def layout(self, num_pages):
        from quest_core.cache.snapshot_files import TensorLayout

        return (TensorLayout("keys", "I8", (2, num_pages, 16)),)

    def pieces(self, num_pages):
        from quest_core.cache.page_transfer import Piece

        return [Piece(0, layer, layer * num_pages * 16, (layer + 1) * num_pages * 16) for layer in range(2)]

    def read(self, piece, pages, tokens_in_last, out):
        time.sleep(self.delay_s)
        out[:] = 0
        for number, page in enumerate(pages):
            out[number * 16 : number * 16 + 16] = page % 256

    def staging(self, num_bytes):
        import numpy as np

        return np.empty(num_bytes, np.uint8)

    def write(self, piece, pages, data, after):
        for number, page in enumerate(pages):
            self.written[page] = data[number * 16 : number * 16 + 16].tobytes()


KEY = "a" * 64


@pytest.fixture
def given_back() -> list[int]:
    return []


@pytest.fixture
def open_store(tmp_path, given_back):
    stores = []

    def make(**settings) -> SnapshotStore:
        folder = settings.pop("snapshot_dir", tmp_path / "snapshots")
        key = settings.pop("key", KEY)
        stores.append(SnapshotStore(folder, key, "tiny", Pages(), given_back.extend, **settings))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


def chain(number: int, length: int = 3, owner: str = "") -> list[Segment]:
    return plan_segments("root", [number] * (256 * length), [Prefix(256 * length, (owner or f"o{number}",))], 256)


def keep(store: SnapshotStore, segments: list[Segment]) -> None:
    for segment in segments:
        store.keep(segment, list(range(16)))
    assert store.flush(20)


def test_what_is_kept_can_be_loaded(open_store, given_back):
    store = open_store()
    segments = chain(1)
    keep(store, segments)
    assert (store.failure, len(given_back)) == ("", 48)
    assert [store.has(segment) for segment in segments] == [True] * 3
    pages = list(range(100, 116))
    assert store.load(segments[1], pages, None) == store._path(segments[1]).stat().st_size
    assert store._transfer.written == {100 + page: bytes([page]) * 16 for page in range(16)}
    assert not store.keep(segments[0], [0])  # it is there already


def test_a_full_disk_is_told_leaves_nothing_half_done_and_is_tried_again(open_store, given_back, monkeypatch):
    store = open_store()
    first, second = chain(1), chain(2)
    keep(store, first)
    write = snapshot_writer._write_all
    room = [100]

    def filling(file, data):
        if room[0] < len(data):
            write(file, data[: room[0]])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(file, data)

    monkeypatch.setattr(snapshot_writer, "_write_all", filling)
    keep(store, second)
    assert "disk is full" in store.failure and "Free some space" in store.failure
    assert sorted(path.stem for path, _ in sized_files(store._snapshot_dir)) == sorted(each.key for each in first)
    assert {path.suffix for path in store._folder.iterdir()} == {".safetensors", ".json"}
    assert len(given_back) == 96
    room[0] = 1 << 20
    keep(store, second)
    assert store.failure == ""
    assert all(store.has(segment) for segment in second)
    assert not [check for check in verify_snapshots(store._snapshot_dir) if check.fault]


def test_the_disk_is_not_filled_to_its_last_byte(open_store, monkeypatch):
    store = open_store()
    usage = os.statvfs(store._snapshot_dir.parent)
    total = usage.f_frsize * usage.f_blocks
    monkeypatch.setattr(
        snapshot_writer.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1 << 20, "total": total})
    )
    keep(store, chain(1))
    assert "disk is full" in store.failure
    assert store.bytes() == 0


def test_a_folder_that_cannot_be_written_to_is_told(open_store, tmp_path):
    (tmp_path / "file").write_text("in the way")
    store = open_store(snapshot_dir=tmp_path / "file")
    keep(store, chain(1))
    assert str(tmp_path / "file") in store.failure and "cannot be written to" in store.failure


def test_a_folder_that_is_a_link_is_neither_written_nor_read(open_store, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    store = open_store()
    keep(store, chain(1))
    store._folder.rename(elsewhere)
    store._folder.symlink_to(elsewhere)
    assert not store.has(chain(1)[0])
    keep(store, chain(2))
    assert "it is a link" in store.failure
    assert len(list(elsewhere.glob("*.safetensors"))) == 3
    assert snapshot_bytes_of(store._snapshot_dir) == 0


def test_the_quota_takes_ends_of_chains_used_longest_ago(open_store, tmp_path):
    store = open_store()
    chains = [chain(number) for number in range(3)]
    for each in chains:
        keep(store, each)
    total = store.bytes()
    for now, each in zip((3, 1, 2), chains, strict=True):
        for segment in each:
            os.utime(store._path(segment), (now, now))
    store.close()
    small = open_store(quota_bytes=total)
    keep(small, chain(3, length=2))
    left = [[small.has(segment) for segment in each] for each in (*chains, chain(3, length=2))]
    assert left == [[True] * 3, [True, False, False], [True] * 3, [True, True]]
    assert small.bytes() <= total


def test_a_chain_longer_than_the_quota_keeps_its_beginning(open_store):
    store = open_store()
    keep(store, chain(1, length=1))
    one = store.bytes()
    store.close()
    small = open_store(quota_bytes=int(one * 3.5))
    long = chain(2, length=6)
    keep(small, long)
    assert [small.has(segment) for segment in long] == [True, True, True, False, False, False]
    assert small.failure == ""
    nothing = open_store(quota_bytes=0)
    keep(nothing, chain(5))
    assert not nothing.has(chain(5)[0])


def test_the_quota_is_for_all_models(open_store):
    other = open_store(key="b" * 64)
    keep(other, chain(1))
    store = open_store(quota_bytes=int(other.bytes() * 1.1))
    keep(store, chain(2))
    assert [store.has(segment) for segment in chain(2)] == [True] * 3
    assert [other.has(segment) for segment in chain(1)] == [False] * 3
    assert {model.name for model in snapshot_models(store._snapshot_dir)} == {"tiny"}


def test_what_is_forgotten_is_gone_also_while_it_is_written(open_store, given_back):
    store = open_store()
    keep(store, chain(1))
    store._transfer.delay_s = 0.1
    for segment in chain(2, length=4):
        store.keep(segment, list(range(16)))
    time.sleep(0.05)
    store.forget("o2")
    assert store.flush(20)
    assert store.bytes("o2") == 0
    assert store.bytes("o1") == store.bytes() > 0
    assert not list(store._folder.glob("*.partial"))
    assert len(given_back) == 16 * 7
    store._transfer.delay_s = 0.0
    keep(store, chain(2))  # added again
    assert store.bytes("o2") > 0


def test_forgetting_needs_no_model_and_takes_what_does_not_tell(open_store):
    store = open_store()
    keep(store, chain(1))
    keep(store, chain(2))
    damaged = store._path(chain(2)[1])
    damaged.write_bytes(b"?" + damaged.read_bytes()[1:])
    before = snapshot_bytes_of(store._snapshot_dir)
    freed = forget_snapshots(store._snapshot_dir, "o1")
    assert freed == before - snapshot_bytes_of(store._snapshot_dir)
    assert [store.has(segment) for segment in chain(2)] == [True, False, False]  # nothing leads to the third any more
    assert forget_snapshots(store._snapshot_dir / "nowhere", "o1") == 0


def test_an_answer_makes_the_writer_step_back_and_a_flush_hurries_it(open_store, monkeypatch):
    monkeypatch.setattr(snapshot_writer, "REST_FOR_WORK", 10_000)
    store = open_store()
    store._transfer.delay_s = 0.05
    store.step_back(True)
    store.keep(chain(1)[0], list(range(16)))
    time.sleep(0.5)
    assert not store.has(chain(1)[0])  # two pieces of 0.05 s, and 500 s of rest after each
    assert store.flush(60)
    assert store.has(chain(1)[0])


def test_who_needs_pages_gets_those_that_wait(open_store, given_back):
    store = open_store()
    store._transfer.delay_s = 0.05
    store.step_back(True)
    for segment in chain(1, length=4):
        store.keep(segment, list(range(16)))
    assert store.drop_orders()
    assert len(given_back) == 64
    assert not store.drop_orders()


def test_a_reader_writes_nothing(open_store, tmp_path, given_back):
    store = open_store(read_only=True)
    assert not store.keep(chain(1)[0], [0])
    store.used(chain(1))
    assert store.forget("o1") == 0
    assert store.flush(1)
    assert not (tmp_path / "snapshots").exists()


def test_what_a_killed_writer_has_left_is_swept(open_store):
    store = open_store()
    keep(store, chain(1))
    store.close()
    (store._folder / (chain(2)[0].key + ".partial")).write_bytes(b"half")
    reader = open_store(read_only=True)
    assert len(list(store._folder.glob("*.partial"))) == 1
    reader.close()
    assert [check.fault for check in verify_snapshots(store._snapshot_dir) if check.fault] == ["was never finished"]
    open_store()
    assert not list(store._folder.glob("*.partial"))
    assert not [check for check in verify_snapshots(store._snapshot_dir) if check.fault]


WRITER = """
import sys, pathlib
sys.path[:0] = [sys.argv[2], sys.argv[3]]
from test_snapshot_store import KEY, Pages, chain, SnapshotStore
store = SnapshotStore(pathlib.Path(sys.argv[1]), KEY, "tiny", Pages(), lambda pages: None)
print("ready", flush=True)
for number in range(1000):
    for segment in chain(number):
        store.keep(segment, list(range(16)))
    store.flush(10)
"""


@pytest.mark.skipif(os.name == "nt", reason="kills with SIGKILL")
def test_a_writer_killed_at_any_instant_leaves_only_whole_files(tmp_path):
    here = Path(__file__)
    folder = tmp_path / "snapshots"
    arguments = [sys.executable, "-c", WRITER, str(folder), str(here.parents[3]), str(here.parent)]
    seen = 0
    for delay_s in (0.013, 0.11):
        writer = subprocess.Popen(arguments, stdout=subprocess.PIPE)
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(delay_s)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        checks = list(verify_snapshots(folder))
        assert {check.fault for check in checks} <= {"", "was never finished"}
        seen += len(checks)
    assert seen


def test_a_header_says_nothing_twice_and_nothing_else(open_store):
    store = open_store()
    keep(store, chain(1))
    path = store._path(chain(1)[0])
    with open_regular(path) as file:
        header = read_header(file)
    assert header.owners == ("o1",)
    assert path.read_bytes()[: len(header.encode())] == header.encode()
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        assert file.metadata()["key"] == chain(1)[0].key
        assert file.get_tensor("keys").shape == (2, 16, 16)
    for forged in (b'{"__metadata__":[]}', b"null", b'{"__metadata__":{"format":"quest-chat-kv-1"}}', b"{" * 90_000):
        path.write_bytes(len(forged).to_bytes(8, "little") + forged)
        with open_regular(path) as file, pytest.raises(SnapshotFault, match="damaged header"):
            read_header(file)


def test_names_that_are_none_are_told_and_left(open_store):
    store = open_store()
    keep(store, chain(1))
    (store._folder / "notes.txt").write_text("mine")
    (store._snapshot_dir / "unrelated").mkdir()
    (store._snapshot_dir / "unrelated" / "photo.jpg").write_text("mine")
    faults = {check.path.name: check.fault for check in verify_snapshots(store._snapshot_dir)}
    assert {name for name, fault in faults.items() if fault} == {"notes.txt"}
    assert ABOUT not in faults and "photo.jpg" not in faults
    forget_snapshots(store._snapshot_dir, "o1")
    assert (store._folder / "notes.txt").exists()


def test_a_writer_that_fails_ends_no_answer(tiny_folder, tmp_path, prompt):
    from quest_core.config import EngineConfig

    (tmp_path / "file").write_text("in the way")
    config = EngineConfig(device="cpu", dtype="float32", prefill_chunk_tokens=64, snapshot_dir=tmp_path / "file")
    engine = Engine.load(str(tiny_folder), config)
    for reused in (0, 200):
        *_, last = engine.new_session().prefill(prompt(220), Cancellation(), 0, [Prefix(200, ("a",))])
        assert last.reused_tokens == reused
        assert engine.snapshots.flush(10)
        assert "cannot be written to" in engine.snapshots.failure
    engine.close()
