"""Snapshot files: one segment's KV pages each, in safetensors, and what can be told of them without a model.

A file is `<snapshot_dir>/<model key>/<segment key>.safetensors`. Its metadata has the segment's place in the chain of
keys, its owners, a CRC-32 of each tensor (the fastest that Python brings: 2.4 GB/s, SHA-256 1.3), and a SHA-256 over
the header, so that every byte of the file is covered. Files that are damaged, cut off or misplaced are found and never
believed. That nobody forged them is not claimed, but what a forger writes is measured before anything is allocated.
Knows nothing of torch or of when to write.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

FORMAT = "quest-chat-kv-1"
SUFFIX, PARTIAL = ".safetensors", ".partial"
ABOUT = "model.json"
# Widest first, so that every tensor starts at a multiple of its numbers' size.
TYPE_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I8": 1, "F8_E4M3": 1}
MAX_HEADER_BYTES = 1 << 20
READ_BYTES = 1 << 20
_ALIGNMENT = 8
_KEY = re.compile("[0-9a-f]{64}")


class SnapshotFault(ValueError):
    """A file that is not what it should be; the message says why, as the rest of a sentence that begins with it."""


@dataclass(frozen=True)
class TensorLayout:
    """A tensor of a file: its name, the kind of its numbers as safetensors calls it, and its shape."""

    name: str
    kind: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * TYPE_BYTES[self.kind]


@dataclass(frozen=True)
class SnapshotHeader:
    """What a file says of itself.

    Args:
        key, parent, start, end, tokens_hash, owners: of its segment, see `quest_core.cache.prefixes.Segment`.
        tensors: in the order of the file.
        checksums: the CRC-32 of each, in the same order.
    """

    key: str
    parent: str
    start: int
    end: int
    tokens_hash: str
    owners: tuple[str, ...]
    tensors: tuple[TensorLayout, ...]
    checksums: tuple[int, ...]

    def encode(self) -> bytes:
        """The file's first bytes, up to its tensors."""
        metadata = {
            "format": FORMAT,
            "key": self.key,
            "parent": self.parent,
            "start": str(self.start),
            "end": str(self.end),
            "tokens_sha256": self.tokens_hash,
            "owners": json.dumps(self.owners),
            "crc32": json.dumps({tensor.name: crc for tensor, crc in zip(self.tensors, self.checksums, strict=True)}),
        }
        described, end = {}, 0
        for tensor in self.tensors:
            start, end = end, end + tensor.bytes
            described[tensor.name] = {"dtype": tensor.kind, "shape": tensor.shape, "data_offsets": [start, end]}
        metadata["sha256"] = hashlib.sha256(json.dumps([metadata, described]).encode()).hexdigest()
        text = json.dumps({"__metadata__": metadata, **described}, separators=(",", ":")).encode()
        text += b" " * (-len(text) % _ALIGNMENT)
        return struct.pack("<Q", len(text)) + text

    @property
    def file_bytes(self) -> int:
        """Of the whole file."""
        return len(self.encode()) + sum(tensor.bytes for tensor in self.tensors)


@dataclass(frozen=True)
class SnapshotCheck:
    """A file that was looked at; `fault` is "" if it is whole, else why it is not, after "it"."""

    path: Path
    bytes: int
    fault: str


@dataclass(frozen=True)
class SnapshotModel:
    """What is kept for one model in one layout; `name` is for people."""

    name: str
    folder: Path
    files: int
    bytes: int


def verify_snapshots(snapshot_dir: Path) -> Iterator[SnapshotCheck]:
    """Read every file from its first byte to its last."""
    for path in _files(snapshot_dir, everything=True):
        size, fault = 0, ""
        try:
            size = path.lstat().st_size
            _check_whole(path)
        except FileNotFoundError:  # removed meanwhile by whoever wrote it
            continue
        except SnapshotFault as error:
            fault = str(error)
        except OSError as error:
            fault = f"cannot be read ({error.strerror or error})"
        yield SnapshotCheck(path, size, fault)


def snapshot_bytes_of(snapshot_dir: Path, owner: str | None = None) -> int:
    """Bytes of all files, or of those of one owner."""
    return sum(size for path, size in sized_files(snapshot_dir) if owner is None or owner in owners_of(path))


def snapshot_models(snapshot_dir: Path) -> list[SnapshotModel]:
    """What is kept, by model and layout; the largest first."""
    models = []
    for folder in _folders(snapshot_dir):
        sizes = [size for path, size in sized_files(snapshot_dir) if path.parent == folder]
        name = folder.name[:8]
        with suppress(OSError, ValueError, KeyError, TypeError):
            with open_regular(folder / ABOUT) as file:
                name = str(json.loads(file.read(MAX_HEADER_BYTES))["model"])[:200]
        models.append(SnapshotModel(name, folder, len(sizes), sum(sizes)))
    return sorted(models, key=lambda model: -model.bytes)


def forget_snapshots(snapshot_dir: Path, owner: str) -> int:
    """Remove the files of `owner`, those that follow them, which nothing leads to any more, and those that do not tell.

    Returns:
        Bytes freed.

    Raises:
        OSError: if one cannot be removed.
    """
    files = {path: (size, header_of(path)) for path, size in sized_files(snapshot_dir)}
    # A file that does not tell is damaged, and might be the owner's.
    gone = {path for path, (_, header) in files.items() if header is None or owner in header.owners}
    found = gone
    while found:
        parents = {(path.parent, path.stem) for path in found}
        found = {
            path
            for path, (_, header) in files.items()
            if path not in gone and header is not None and (path.parent, header.parent) in parents
        }
        gone = gone | found
    for path in gone:
        path.unlink(missing_ok=True)
    return sum(files[path][0] for path in gone)


def sized_files(snapshot_dir: Path) -> Iterator[tuple[Path, int]]:
    """All finished files with their bytes; neither links nor what other programs have put there."""
    for path in _files(snapshot_dir):
        with suppress(OSError):
            found = path.lstat()
            if stat.S_ISREG(found.st_mode):
                yield path, found.st_size


def unfinished_files(snapshot_dir: Path) -> list[Path]:
    """What is being written, or was when its writer was killed."""
    return [path for path in _files(snapshot_dir, everything=True) if path.name.endswith(PARTIAL)]


def is_snapshot_name(name: str) -> bool:
    return name.endswith(SUFFIX) and _KEY.fullmatch(name[: -len(SUFFIX)]) is not None


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a file to read it unbuffered; a link, a pipe or a device is not followed or waited for.

    Raises:
        SnapshotFault: if it is none.
        OSError: if it cannot be opened.
    """
    # Windows has none of these, and no links without rights.
    flags = [getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")]
    if path.is_symlink():
        raise SnapshotFault("is a link")
    with open(os.open(path, os.O_RDONLY | sum(flags)), "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise SnapshotFault("is no file")
        yield file


def read_header(file: BinaryIO) -> SnapshotHeader:
    """Read and check what a file says of itself, and that it is as long as it says; leaves `file` at its tensors.

    Raises:
        SnapshotFault: if it is damaged, cut off or of another format.
    """
    length = struct.unpack("<Q", _read_exactly(file, 8))[0]
    if length > MAX_HEADER_BYTES:
        raise SnapshotFault("has no header")
    text = _read_exactly(file, length)
    try:
        described = json.loads(text)
        metadata = described.pop("__metadata__")
        if metadata["format"] != FORMAT:
            raise SnapshotFault("is of another format")
        checksums = json.loads(metadata["crc32"])
        header = SnapshotHeader(
            metadata["key"],
            metadata["parent"],
            int(metadata["start"]),
            int(metadata["end"]),
            metadata["tokens_sha256"],
            tuple(json.loads(metadata["owners"])),
            tuple(TensorLayout(name, each["dtype"], tuple(each["shape"])) for name, each in described.items()),
            tuple(checksums[name] for name in described),
        )
        if not _is_well_formed(header):
            raise SnapshotFault("has a damaged header")
        encoded = header.encode()
    except SnapshotFault:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise SnapshotFault("has a damaged header") from error
    # Written once more, a header that was read right is the same to the byte, its hash included.
    if encoded != struct.pack("<Q", length) + text:
        raise SnapshotFault("has a damaged header")
    if os.fstat(file.fileno()).st_size != len(encoded) + sum(tensor.bytes for tensor in header.tensors):
        raise SnapshotFault("is cut off or has grown")
    return header


def read_into(file: BinaryIO, buffer: memoryview) -> None:
    """Fill `buffer` from where `file` is.

    Raises:
        SnapshotFault: if it ends before.
    """
    filled = 0
    while filled < len(buffer):
        count = file.readinto(buffer[filled:])
        if not count:
            raise SnapshotFault("is cut off")
        filled += count


def write_through(folder: Path) -> None:
    """Have the names in `folder` on the disk, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def header_of(path: Path) -> SnapshotHeader | None:
    """What a file says of itself; None if it is not whole enough to say it, or gone."""
    try:
        with open_regular(path) as file:
            header = read_header(file)
            return header if path.name == header.key + SUFFIX else None
    except (OSError, SnapshotFault):
        return None


def owners_of(path: Path) -> tuple[str, ...]:
    """Whom a file belongs to; nobody, if it does not tell."""
    header = header_of(path)
    return () if header is None else header.owners


def _check_whole(path: Path) -> None:
    if path.name.endswith(PARTIAL):
        raise SnapshotFault("was never finished")
    if not is_snapshot_name(path.name):
        raise SnapshotFault("is no snapshot")
    buffer = memoryview(bytearray(READ_BYTES))
    with open_regular(path) as file:
        header = read_header(file)
        if path.name != header.key + SUFFIX:
            raise SnapshotFault("has the name of another")
        for tensor, stated in zip(header.tensors, header.checksums, strict=True):
            crc = 0
            for start in range(0, tensor.bytes, READ_BYTES):
                piece = buffer[: min(READ_BYTES, tensor.bytes - start)]
                read_into(file, piece)
                crc = zlib.crc32(piece, crc)
            if crc != stated:
                raise SnapshotFault(f"has damaged {tensor.name}")


def _is_well_formed(header: SnapshotHeader) -> bool:
    texts = (header.key, header.parent, header.tokens_hash, *header.owners)
    numbers = [size for tensor in header.tensors for size in tensor.shape] + list(header.checksums)
    return (
        all(isinstance(text, str) for text in texts)
        and all(type(number) is int and number >= 0 for number in numbers)
        and all(tensor.kind in TYPE_BYTES for tensor in header.tensors)
    )


def _read_exactly(file: BinaryIO, count: int) -> bytes:
    buffer = bytearray(count)
    read_into(file, memoryview(buffer))
    return bytes(buffer)


def _folders(snapshot_dir: Path) -> list[Path]:
    try:
        with os.scandir(snapshot_dir) as entries:
            return sorted(
                Path(entry.path)
                for entry in entries
                if _KEY.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
            )
    except OSError:
        return []


def _files(snapshot_dir: Path, everything: bool = False) -> Iterator[Path]:
    for folder in _folders(snapshot_dir):
        with suppress(OSError), os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
            yield from (folder / name for name in names if is_snapshot_name(name) or (everything and name != ABOUT))
