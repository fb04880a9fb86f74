"""What models have kept of documents goes with them, and is looked through with the rest."""

from __future__ import annotations

import hashlib
import json
import zlib
from contextlib import closing
from pathlib import Path

from app.library.library import Library
from app.store.database import Database
from app.store.inspection import storage_sizes, verify_storage
from quest_core.cache.snapshot_files import ABOUT, SnapshotHeader, TensorLayout


def write_snapshot(data_dir: Path, name: str, *owners: str) -> Path:
    """A whole snapshot of nothing in particular, as the engine writes them."""
    folder = data_dir / "snapshots" / ("0" * 64)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ABOUT).write_text(json.dumps({"model": "smol"}))
    key, content = hashlib.sha256(name.encode()).hexdigest(), b"\x01" * 4096
    tensor = TensorLayout("keys", "F32", (1024,))
    header = SnapshotHeader(key, "0" * 64, 0, 4, "0" * 64, owners, (tensor,), (zlib.crc32(content),))
    path = folder / f"{key}.safetensors"
    path.write_bytes(header.encode() + content)
    return path


def test_snapshots_go_with_their_document(tmp_path):
    data_dir = tmp_path / "data"
    with closing(Database.open(data_dir)) as database, closing(Library(data_dir, database)) as library:
        ids = []
        for name in ("one.txt", "two.txt"):
            (tmp_path / name).write_text(f"The harbour of {name}.")
            ids.append(library.add(tmp_path / name).document_id)
        own, both = write_snapshot(data_dir, "own", ids[0]), write_snapshot(data_dir, "both", *ids)
        other = write_snapshot(data_dir, "other", ids[1])
        library.remove(ids[0])
        assert not own.exists() and not both.exists() and other.exists()


def test_sizes_are_told_by_model(tmp_path):
    path = write_snapshot(tmp_path, "one", "a" * 32)
    sizes = storage_sizes(tmp_path).snapshots
    assert list(sizes) == ["smol (00000000)"] and sizes["smol (00000000)"] >= path.stat().st_size


def test_a_damaged_snapshot_is_removed(tmp_path):
    whole, flipped = write_snapshot(tmp_path, "whole", "a" * 32), write_snapshot(tmp_path, "flipped", "a" * 32)
    assert list(verify_storage(tmp_path)) == []
    content = bytearray(flipped.read_bytes())
    content[-100] ^= 1
    flipped.write_bytes(content)
    (fault,) = verify_storage(tmp_path)
    assert str(flipped.relative_to(tmp_path)) in fault.message and fault.is_repaired
    assert whole.exists() and not flipped.exists()
    assert list(verify_storage(tmp_path)) == []
