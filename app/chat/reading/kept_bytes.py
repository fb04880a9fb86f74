"""How much of the disk what models have read takes, by document: for a list that is asked for several times a second.

A file never changes once it is there, so each is opened once.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path

_LOOK_AGAIN_S = 2.0


class KeptBytes:
    """Bytes of snapshots by document id.

    Args:
        snapshot_dir: where they are; None if nothing is kept.
    """

    def __init__(self, snapshot_dir: Path | None) -> None:
        self._snapshot_dir = snapshot_dir
        self._lock = threading.Lock()
        self._owners: dict[Path, tuple[str, ...]] = {}
        self._bytes: Counter[str] = Counter()
        self._looked_at = -_LOOK_AGAIN_S

    def of(self, document_id: str) -> int:
        """Bytes that hold a document, as of a moment ago."""
        with self._lock:
            if self._snapshot_dir is not None and time.monotonic() - self._looked_at >= _LOOK_AGAIN_S:
                self._look(self._snapshot_dir)
                self._looked_at = time.monotonic()
            return self._bytes[document_id]

    def _look(self, snapshot_dir: Path) -> None:
        from quest_core.cache.snapshot_files import owners_of, sized_files

        owners, counted = {}, Counter()
        for path, size in sized_files(snapshot_dir):
            owners[path] = self._owners[path] if path in self._owners else owners_of(path)
            for owner in owners[path]:
                counted[owner] += size
        self._owners, self._bytes = owners, counted
