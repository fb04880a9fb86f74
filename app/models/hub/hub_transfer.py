"""The bytes of a model's files: fetched in order, gone on with where they stopped, and checked before they count.

Runs in the process of `hub_process.py`, which may be killed at any moment: what is in a part of a file stays, and the
next run goes on behind it. A file takes its name in the cache only once its checksum is the hub's.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO

import httpx2
from filelock import FileLock, Timeout

from app.models.hub.hub_cache import HubCache
from app.models.hub.hub_model import HubError, HubFile, HubModel
from app.models.hub.hub_requests import Unreachable, explained, opened

_BLOCK_BYTES = 1 << 20
_TELL_S = 0.5
_MOST_PAUSE_S = 60.0
_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT)


class Transfer:
    """Downloads the files of one model.

    Args:
        model: what is downloaded.
        cache: where to.
        tell: is told {"kind": "progress" | "checking" | "waiting", ...} as `hub_process` says.
        pause_s: before the first new attempt after a loss; doubled up to a minute.
    """

    def __init__(self, model: HubModel, cache: HubCache, tell: Callable[..., None], pause_s: float = 1.0) -> None:
        self._model = model
        self._cache = cache
        self._tell = tell
        self._pause_s = pause_s
        self._told_at = 0.0
        self._done_bytes = 0

    def run(self) -> None:
        """Fetch what is missing; goes on for as long as the network is away.

        Raises:
            HubError: it cannot be completed.
        """
        missing = [file for file in self._model.files if not self._cache.is_whole(self._model, file)]
        self._check_room()
        for file in missing:
            # Anew for each: another program may have completed one, or removed it.
            self._done_bytes = self._cache.present_bytes(self._model)
            self._report("progress", at_once=True)
            try:
                self._fetch(file)
            except OSError as error:
                raise self._explained_disk(error) from error
        self._done_bytes = self._model.total_bytes
        self._report("progress", at_once=True)

    def _check_room(self) -> None:
        needed = self._model.total_bytes - self._cache.present_bytes(self._model)
        free = self._cache.free_bytes()
        if needed > free:
            raise HubError(
                "disk",
                f"{self._model.model} needs {needed / 2**30:,.1f} GiB more on the disk of {self._cache.folder}, and "
                f"{free / 2**30:,.1f} GiB may be used (1 GiB is left free). Free some space, or set HF_HUB_CACHE to a "
                "folder on another disk.",
            )

    def _explained_disk(self, error: OSError) -> HubError:
        if error.errno in _DISK_IS_FULL:
            return HubError("disk", f"The disk of {self._cache.folder} is full. Free some space, then resume.")
        reason = error.strerror or type(error).__name__
        return HubError("disk", f"The folder {self._cache.folder} cannot be written to ({reason}). Set HF_HUB_CACHE.")

    def _fetch(self, file: HubFile) -> None:
        path, lock = self._cache.part(self._model, file), self._cache.lock(self._model, file)
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(lock, timeout=0):
                if self._cache.is_whole(self._model, file):
                    return
                with path.open("ab+", buffering=0) as stream:
                    is_right = self._fill(Part(file, stream, self._count))
                    os.fsync(stream.fileno())
                if not is_right:
                    path.unlink()
                    raise HubError(
                        "checksum",
                        f"{file.name} arrived damaged: its checksum is not the one the hub states. It was thrown away; "
                        "resume to download it again.",
                    )
                path.replace(self._cache.blob(self._model, file))
        except Timeout as error:
            raise HubError(
                "in use", f"Another program is downloading {file.name}. Wait until it has finished, then resume."
            ) from error

    def _fill(self, part: Part) -> bool:
        """Complete a part of a file; gives whether it is the hub's file then."""
        for _ in part.read_what_is_there():
            self._report("checking")
        attempt = 0
        while part.size < part.file.size_bytes:
            before = part.size
            try:
                with explained(self._model.repository):
                    self._receive(part)
            except Unreachable as lost:
                attempt = 0 if part.size > before else attempt + 1
                self._wait(lost, attempt)
        return part.is_right

    def _receive(self, part: Part) -> None:
        with opened(self._model.repository, self._model.commit, part.file, part.size) as response:
            if part.size and not _continues(response, part.size, part.file.size_bytes):
                # It gives the whole file or nothing.
                part.begin_again()
            if response.status_code == 416:
                raise Unreachable("The hub did not go on where the download had stopped")
            for block in response.iter_bytes():
                part.append(block)
                self._report("progress")
                if part.size > part.file.size_bytes:
                    return
        if part.size < part.file.size_bytes:
            raise Unreachable("The connection ended before the file did")

    def _wait(self, lost: Unreachable, attempt: int) -> None:
        pause_s = max(lost.wait_s, min(_MOST_PAUSE_S, self._pause_s * 2**attempt))
        self._tell(kind="waiting", message=lost.message, pause_s=pause_s, done_bytes=self._done_bytes)
        time.sleep(pause_s)

    def _count(self, received_bytes: int) -> None:
        self._done_bytes += received_bytes

    def _report(self, kind: str, at_once: bool = False) -> None:
        now = time.monotonic()
        if at_once or now - self._told_at >= _TELL_S:
            self._told_at = now
            self._tell(kind=kind, done_bytes=self._done_bytes)


class Part:
    """A file on its way: what is there of it, and the checksum of that.

    Args:
        file: what it is to become.
        stream: its bytes so far; what is written goes to the end.
        count: is told by how many bytes it has grown, or shrunk.
    """

    def __init__(self, file: HubFile, stream: BinaryIO, count: Callable[[int], None]) -> None:
        self.file = file
        self.size = stream.seek(0, os.SEEK_END)
        self._stream = stream
        self._count = count
        self._digest = file.new_digest()
        if self.size > file.size_bytes:
            self.begin_again()

    @property
    def is_right(self) -> bool:
        return self.size == self.file.size_bytes and self._digest.hexdigest() == self.file.blob

    def read_what_is_there(self) -> Iterator[None]:
        """Take what an earlier run has left into the checksum, a block at a time."""
        self._stream.seek(0)
        while block := self._stream.read(_BLOCK_BYTES):
            self._digest.update(block)
            yield

    def append(self, block: bytes) -> None:
        """Add what has arrived."""
        left = memoryview(block)
        while left:
            # A disk that is nearly full takes a part before it refuses.
            written = self._stream.write(left)
            self._digest.update(left[:written])
            self.size += written
            self._count(written)
            left = left[written:]

    def begin_again(self) -> None:
        """Throw away what is there."""
        self._stream.truncate(0)
        self._count(-min(self.size, self.file.size_bytes))
        self.size, self._digest = 0, self.file.new_digest()


def _continues(response: httpx2.Response, start: int, total: int) -> bool:
    """Whether an answer is the rest of a file from `start` on."""
    content_range = response.headers.get("Content-Range", "")
    return (
        response.status_code == 206
        and content_range.startswith(f"bytes {start}-")
        and (content_range.endswith((f"/{total}", "/*")))
    )
