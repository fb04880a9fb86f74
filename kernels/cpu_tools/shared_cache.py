"""One process compiles a version of a function; the others wait and take it from the disk.

Numba's cache expects one writer. Two processes that save at once give their files the same number, after which the
index may lead to the code of another signature; and both spend time on the same work. Locks beside the files keep them
apart: one for each signature while it is compiled, one for the index while it is written. When a process ends, its
locks are released.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import Dispatcher

# Far more than any function takes to compile: a process that holds a lock for longer has been stopped.
PATIENCE_S = 300.0


def share_cache(dispatcher: Dispatcher) -> None:
    """Have `dispatcher`, in place, compile and save under locks that other processes know too."""
    cache_file = dispatcher._cache._cache_file
    compile_signature, save = dispatcher.compile, cache_file.save
    folder, name = Path(cache_file._cache_path), cache_file._index_name

    def compile_once(signature: Any) -> Any:
        # Numba's own lock first: who holds it may wait for a file, but never the other way round.
        with global_compiler_lock:
            version = hashlib.sha256(str(signature).encode()).hexdigest()[:16]
            with _held(folder / f"{name}.{version}.lock"):
                return compile_signature(signature)

    def save_alone(key: Any, data: Any) -> None:
        with _held(folder / f"{name}.lock"):
            save(key, data)

    dispatcher.compile, cache_file.save = compile_once, save_alone


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold a lock, or go on without one where none can be had: then at worst something is compiled twice."""
    lock = FileLock(path, timeout=PATIENCE_S)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (OSError, NotImplementedError, Timeout):
        # A disk that is full or a folder that cannot be written to; file systems without locks; a stopped process.
        lock = None
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
