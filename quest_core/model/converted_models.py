"""Folders that are made once from a model's file and kept: one process makes them, and damaged ones are made again.

A manifest beside the files has the size, the time and the hash of each. A start compares all sizes, and the hashes of
small files; that of a large one only where its time has changed: it takes a second for each gigabyte, a quarter of one
for the embedded model. Knows nothing of what the files hold.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MANIFEST = "manifest.json"
ALWAYS_HASHED_BYTES = 32 << 20
PARTIAL, LOCK = ".partial", ".lock"


def find_or_make(
    folder: Path,
    make: Callable[[Path], None],
    *,
    on_make: Callable[[], None] = lambda: None,
    on_wait: Callable[[], None] = lambda: None,
) -> Path:
    """Return `folder`, made by `make` if it is not there or not as it was made.

    Args:
        folder: where it is kept.
        make: fills an empty folder.
        on_make: called before it is made.
        on_wait: called before waiting for another process that makes it.

    Raises:
        OSError: if the folder cannot be written.
    """
    if is_whole(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder, on_wait):
        if is_whole(folder):  # another process has made it meanwhile
            return folder
        _sweep(folder.parent)
        on_make()
        partial = _beside(folder, PARTIAL)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            make(partial)
            _write_manifest(partial)
            if folder.exists():
                shutil.rmtree(folder)
            # The finished folder appears in one step, so that an interrupted conversion is never mistaken for one.
            partial.rename(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return folder


def is_whole(folder: Path) -> bool:
    """Whether the files in `folder` are as they were made, going by the manifest."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        moved = False
        for name, stated in files.items():
            path = folder / name
            found = path.stat()
            if found.st_size != stated["bytes"]:
                return False
            same_time = found.st_mtime_ns == stated["modified_ns"]
            moved |= not same_time
            if (found.st_size <= ALWAYS_HASHED_BYTES or not same_time) and _hash(path) != stated["sha256"]:
                return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    if moved:  # copied, say: so that the next start need not hash it again
        with suppress(OSError):
            _write_manifest(folder, {name: stated["sha256"] for name, stated in files.items()})
    return bool(files)


def _write_manifest(folder: Path, hashes: dict[str, str] | None = None) -> None:
    """Describe the files in `folder`, and have them on the disk first, so that a power failure leaves no empty ones."""
    files = {}
    for path in sorted(folder.iterdir()) if hashes is None else [folder / name for name in hashes]:
        if hashes is None:
            _write_through(path)
        found = path.stat()
        digest = _hash(path) if hashes is None else hashes[path.name]
        files[path.name] = {"bytes": found.st_size, "modified_ns": found.st_mtime_ns, "sha256": digest}
    unfinished = folder / (MANIFEST + PARTIAL)
    unfinished.write_text(json.dumps({"files": files}, indent=2), encoding="utf-8")
    _write_through(unfinished)
    unfinished.replace(folder / MANIFEST)


def _write_through(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _beside(folder: Path, suffix: str) -> Path:
    return folder.with_name(folder.name + suffix)


@contextmanager
def _locked(folder: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    from filelock import FileLock, Timeout

    # The system lets go of it when the process ends, however it ends. The empty file stays: a name that one process
    # removes while another waits for it would let two of them in.
    lock = FileLock(_beside(folder, LOCK))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _sweep(cache_dir: Path) -> None:
    """Remove what conversions left behind that were killed."""
    from filelock import FileLock, Timeout

    for partial in cache_dir.glob(f"*{PARTIAL}"):
        lock = FileLock(_beside(partial.with_name(partial.name.removesuffix(PARTIAL)), LOCK))
        with suppress(Timeout, OSError):
            # A lock that this process holds itself counts as taken: its own folder it empties anyway.
            lock.acquire(timeout=0)
            try:
                shutil.rmtree(partial, ignore_errors=True)
            finally:
                lock.release()
