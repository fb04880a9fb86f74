"""Writes segments of prompts to files, in a thread of its own.

It takes a private copy of a segment's pages first, so that the pool soon has them back, and steps back while somebody
waits for an answer. What cannot be written is told in `failure` and given up; whoever uses the segment next may order
it again. Knows nothing of sessions, of what is read, or of pages but their numbers.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quest_core.cache.page_transfer import PageTransfer
from quest_core.cache.prefixes import Segment
from quest_core.cache.snapshot_files import (
    ABOUT,
    PARTIAL,
    READ_BYTES,
    SUFFIX,
    SnapshotHeader,
    unfinished_files,
    write_through,
)
from quest_core.cache.snapshot_quota import make_room

# While somebody waits for an answer the writer rests so many times as long as it worked.
REST_FOR_WORK = 60
# Left free on a disk, or this fraction of a small one: others, who keep what cannot be made again, write there too.
LEAVE_FREE_BYTES, LEAVE_FREE_FRACTION = 64 << 20, 0.02
# How long pages that are being copied are waited for when the pool has no others.
COPY_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class _Order:
    segment: Segment
    pages: tuple[int, ...]


class SnapshotWriter:
    """The one writer of a snapshot folder.

    Args:
        snapshot_dir: of all models.
        folder: of the model, within it.
        model_name: for people.
        transfer: from the page pool.
        give_back: told, on any thread, of pages that an order no longer uses.
        quota_bytes: of all models; None for no limit.
    """

    def __init__(
        self,
        snapshot_dir: Path,
        folder: Path,
        model_name: str,
        transfer: PageTransfer,
        give_back: Callable[[list[int]], None],
        quota_bytes: int | None,
    ) -> None:
        self._snapshot_dir = snapshot_dir
        self._folder = folder
        self._model_name = model_name
        self._transfer = transfer
        self._give_back = give_back
        self._quota_bytes = quota_bytes
        self._failure = ""
        self._orders: deque[_Order] = deque()
        self._current: _Order | None = None
        self._copying = False
        self._dropped: set[str] = set()  # keys whose file, if it is being written, is no longer wanted
        self._answering = self._hurried = self._closed = False
        self._changed = threading.Condition()
        self._sweep()
        self._thread = threading.Thread(target=self._serve, name="quest-snapshots", daemon=True)
        self._thread.start()

    @property
    def failure(self) -> str:
        """Why segments cannot be written, as a sentence; "" since the last that was."""
        return self._failure

    def order(self, segment: Segment, pages: Sequence[int]) -> bool:
        """Order a segment to be written; False if nothing is to be done.

        Args:
            pages: counted as used by the order, until `give_back` is told.
        """
        with self._changed:
            if self._closed:
                return False
            known = (*self._orders, *filter(None, [self._current]))
            if any(order.segment.key == segment.key for order in known):
                return False
            self._dropped.discard(segment.key)
            self._orders.append(_Order(segment, tuple(pages)))
            self._changed.notify_all()
        return True

    def step_back(self, answering: bool) -> None:
        """Tell whether somebody waits for an answer."""
        with self._changed:
            self._answering = answering
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything ordered so far is written, or given up; False after `timeout_s`."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: not self._orders and self._current is None, timeout_s)
            finally:
                self._hurried = False

    def drop_orders(self) -> bool:
        """Give up what is not begun, and have what is begun copied at once, so that their pages are free.

        Returns:
            Whether any are.
        """
        with self._changed:
            had_orders, was_copying = bool(self._orders), self._copying
            while self._orders:
                self._give_back(list(self._orders.popleft().pages))
            self._hurried = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._copying, COPY_TIMEOUT_S)
            self._hurried = False
            # A disk that hangs must not hang whoever needs pages.
            return had_orders or (was_copying and not self._copying)

    def forget(self, owner: str) -> None:
        """Give up what is ordered of `owner`, the file that is just being written included; from any thread."""
        with self._changed:
            kept: deque[_Order] = deque()
            for order in self._orders:
                if owner in order.segment.owners:
                    self._give_back(list(order.pages))
                else:
                    kept.append(order)
            self._orders = kept
            if self._current is not None and owner in self._current.segment.owners:
                self._dropped.add(self._current.segment.key)
            self._changed.notify_all()

    def close(self) -> None:
        """Write what is ordered, but not for long, and end the thread."""
        self.flush(CLOSE_TIMEOUT_S)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.drop_orders()
        # A disk that hangs must not keep the process from ending.
        self._thread.join(CLOSE_TIMEOUT_S)

    def _sweep(self) -> None:
        """Remove what a writer that was killed has left: there is one writer, and it is this one."""
        for path in unfinished_files(self._snapshot_dir):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _serve(self) -> None:
        memory = np.empty(0, np.uint8)
        while True:
            with self._changed:
                if not self._orders:
                    memory = np.empty(0, np.uint8)  # half a gigabyte, on a GPU, that nobody needs now
                self._changed.wait_for(lambda: self._orders or self._closed)
                if not self._orders:
                    return
                order = self._current = self._orders.popleft()
                self._copying = True
            try:
                memory = self._write(order, memory)
            except OSError as error:
                self._failure = self._explain(error)
            except (RuntimeError, MemoryError) as error:  # the device's, or the host's
                self._failure = f"What was read of documents cannot be kept for the next start: {error}."
            finally:
                self._copied(order)
                with self._changed:
                    self._current = None
                    self._dropped.discard(order.segment.key)
                    self._changed.notify_all()

    def _write(self, order: _Order, memory: np.ndarray) -> np.ndarray:
        """Write a segment's file; returns the memory that held its pages, for the next."""
        segment, transfer = order.segment, self._transfer
        tensors = transfer.layout(len(order.pages))
        total_bytes = sum(tensor.bytes for tensor in tensors)
        if self._path(segment).exists() or not self._prepare(segment, total_bytes):
            return memory
        if memory.nbytes < total_bytes:
            memory = np.empty(total_bytes, np.uint8)
        tokens_in_last = (segment.end - 1) % self._transfer.page_size + 1
        checksums = [0] * len(tensors)
        for piece in transfer.pieces(len(order.pages)):
            start = time.perf_counter()
            transfer.read(piece, order.pages, tokens_in_last, memory[piece.start : piece.end])
            self._rest(start)
        self._copied(order)
        for piece in transfer.pieces(len(order.pages)):
            start = time.perf_counter()
            checksums[piece.tensor] = zlib.crc32(memory[piece.start : piece.end], checksums[piece.tensor])
            self._rest(start)
        header = SnapshotHeader(
            segment.key, segment.parent, segment.start, segment.end, segment.tokens_hash, segment.owners, tensors,
            tuple(checksums),
        )  # fmt: skip
        self._write_file(segment, header, memoryview(memory)[:total_bytes])
        return memory

    def _prepare(self, segment: Segment, size: int) -> bool:
        """Make room for a file; False if it would be of no use."""
        if segment.start > 0 and not (self._folder / (segment.parent + SUFFIX)).exists():
            return False  # nothing would lead to it
        # What was read can be guessed from it.
        self._folder.mkdir(0o700, parents=True, exist_ok=True)
        if self._folder.is_symlink():
            raise OSError(errno.ELOOP, "it is a link", str(self._folder))
        with suppress(FileExistsError), (self._folder / ABOUT).open("x", encoding="utf-8") as file:
            json.dump({"model": self._model_name}, file)
        if self._quota_bytes is not None and not make_room(
            self._snapshot_dir, self._folder, segment.parent, size, self._quota_bytes
        ):
            return False
        disk = shutil.disk_usage(self._folder)
        if disk.free - size < min(LEAVE_FREE_BYTES, disk.total * LEAVE_FREE_FRACTION):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))
        return True

    def _write_file(self, segment: Segment, header: SnapshotHeader, data: memoryview) -> None:
        partial = self._folder / (segment.key + PARTIAL)
        try:
            # A name that is there already, a link say, is not written through.
            partial.unlink(missing_ok=True)
            with partial.open("xb", buffering=0) as file:
                for piece in (memoryview(header.encode()), data):
                    for start in range(0, len(piece), READ_BYTES):
                        began = time.perf_counter()
                        _write_all(file, piece[start : start + READ_BYTES])
                        self._rest(began)
                os.fsync(file.fileno())
            with self._changed:  # so that nobody forgets it between the question and the new name
                if segment.key in self._dropped:
                    partial.unlink()
                    return
                partial.replace(self._path(segment))
            write_through(self._folder)
            self._failure = ""
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise

    def _rest(self, began: float) -> None:
        """Leave the processor to an answer, many times as long as was worked since `began`."""
        if not self._answering:
            return
        rest_s = (time.perf_counter() - began) * REST_FOR_WORK
        with self._changed:
            self._changed.wait_for(lambda: not self._answering or self._hurried or self._closed, rest_s)

    def _copied(self, order: _Order) -> None:
        with self._changed:
            if self._copying:
                self._copying = False
                self._give_back(list(order.pages))
                self._changed.notify_all()

    def _path(self, segment: Segment) -> Path:
        return self._folder / (segment.key + SUFFIX)

    def _explain(self, error: OSError) -> str:
        if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
            return (
                f"The disk is full: what was read of documents cannot be kept in {self._snapshot_dir} for the next "
                "start. Free some space on it, or remove documents."
            )
        return (
            f"What was read of documents cannot be kept for the next start: {self._snapshot_dir} cannot be written to "
            f"({error.strerror or error})."
        )


def _write_all(file: Any, data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]
