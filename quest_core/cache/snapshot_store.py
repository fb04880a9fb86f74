"""Segments of prompts on the disk: found, brought back, and ordered to be written.

One process writes to a folder, any number may read. Nothing that fails here ends anybody's work. Knows nothing of
sessions; of pages only their numbers.
"""

from __future__ import annotations

import os
import stat
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from quest_core.cache.page_transfer import PageTransfer
from quest_core.cache.prefixes import Segment
from quest_core.cache.snapshot_files import (
    SUFFIX,
    SnapshotFault,
    SnapshotHeader,
    forget_snapshots,
    open_regular,
    owners_of,
    read_header,
    read_into,
    sized_files,
)
from quest_core.cache.snapshot_writer import SnapshotWriter


class SnapshotStore:
    """What is kept in one folder for one model.

    Args:
        snapshot_dir: of all models.
        model_key: of the model, its precision and the cache's layout, in hex digits.
        model_name: for people.
        transfer: to and from the page pool.
        give_back: told, on any thread, of pages that an order no longer uses.
        quota_bytes: of all models; None for no limit.
        read_only: write and remove nothing.
    """

    def __init__(
        self,
        snapshot_dir: Path,
        model_key: str,
        model_name: str,
        transfer: PageTransfer,
        give_back: Callable[[list[int]], None],
        quota_bytes: int | None = None,
        read_only: bool = False,
    ) -> None:
        self.read_only = read_only
        self._snapshot_dir = snapshot_dir
        self._folder = snapshot_dir / model_key
        self._transfer = transfer
        self._owners: dict[tuple[Path, int], tuple[str, ...]] = {}  # a file's contents never change
        self._writer = (
            None
            if read_only
            else SnapshotWriter(snapshot_dir, self._folder, model_name, transfer, give_back, quota_bytes)
        )

    @property
    def failure(self) -> str:
        """Why segments cannot be written, as a sentence; "" since the last that was."""
        return "" if self._writer is None else self._writer.failure

    def bytes(self, owner: str | None = None) -> int:
        """On the disk, of all models; of all owners or of one."""
        total = 0
        for path, size in sized_files(self._snapshot_dir):
            if owner is not None and (path, size) not in self._owners:
                self._owners[path, size] = owners_of(path)
            if owner is None or owner in self._owners[path, size]:
                total += size
        return total

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything ordered so far is written, or given up; False after `timeout_s`."""
        return self._writer is None or self._writer.flush(timeout_s)

    def close(self) -> None:
        """Write what is ordered, but not for long, and end the thread."""
        if self._writer is not None:
            self._writer.close()

    def step_back(self, answering: bool) -> None:
        """Tell whether somebody waits for an answer."""
        if self._writer is not None:
            self._writer.step_back(answering)

    def has(self, segment: Segment) -> bool:
        """Whether there is a file, whole or not."""
        with suppress(OSError):
            return not self._folder.is_symlink() and stat.S_ISREG(self._path(segment).lstat().st_mode)
        return False

    def load(self, segment: Segment, pages: Sequence[int], after: Any) -> int:
        """Fill `pages` with a segment; from any thread.

        Args:
            pages: as many as it has; nobody else's.
            after: a `PageTransfer.mark` from when they had been allocated.

        Returns:
            The bytes read.

        Raises:
            SnapshotFault: if the file is not whole or not this segment's, and what is in the pages is of no use.
            OSError: if it cannot be read; it may be gone.
        """
        transfer = self._transfer
        with open_regular(self._path(segment)) as file:
            header = read_header(file)
            found = (header.key, header.parent, header.start, header.end, header.tokens_hash)
            if found != (segment.key, segment.parent, segment.start, segment.end, segment.tokens_hash):
                raise SnapshotFault("is of other tokens")
            if header.tensors != transfer.layout(len(pages)):
                raise SnapshotFault("is of another layout")
            tensor, crc = 0, 0
            for piece in transfer.pieces(len(pages)):
                if piece.tensor != tensor:
                    _compare(header, tensor, crc)
                    tensor, crc = piece.tensor, 0
                data = transfer.staging(piece.end - piece.start)
                read_into(file, memoryview(data))
                crc = zlib.crc32(data, crc)
                transfer.write(piece, pages, data, after)
            _compare(header, tensor, crc)
        return header.file_bytes

    def reject(self, segment: Segment) -> None:
        """Remove a file that is not whole."""
        if not self.read_only:
            with suppress(OSError):
                self._path(segment).unlink()

    def used(self, segments: Sequence[Segment]) -> None:
        """Note that a prompt began with `segments`, so that they are the last to go when room is needed."""
        if self.read_only:
            return
        now = time.time_ns()
        for segment in segments:
            with suppress(OSError):
                os.utime(self._path(segment), ns=(now, now))

    def keep(self, segment: Segment, pages: Sequence[int]) -> bool:
        """Order a segment to be written; False if nothing is to be done.

        Args:
            pages: counted as used by the order, until `give_back` is told.
        """
        return self._writer is not None and not self.has(segment) and self._writer.order(segment, pages)

    def drop_orders(self) -> bool:
        """Have the pages free that wait to be written; returns whether any are."""
        return self._writer is not None and self._writer.drop_orders()

    def forget(self, owner: str) -> int:
        """Remove what is kept of `owner`, for all models, and what is about to be; from any thread.

        Returns:
            Bytes freed.

        Raises:
            OSError: if a file cannot be removed.
        """
        if self._writer is None:
            return 0
        self._writer.forget(owner)
        return forget_snapshots(self._snapshot_dir, owner)

    def _path(self, segment: Segment) -> Path:
        return self._folder / (segment.key + SUFFIX)


def _compare(header: SnapshotHeader, tensor: int, crc: int) -> None:
    if header.checksums[tensor] != crc:
        raise SnapshotFault(f"has damaged {header.tensors[tensor].name}")
