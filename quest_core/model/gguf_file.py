"""What a GGUF file says: its metadata, and where its tensors lie; several files where llama.cpp has split one.

Every count, length and offset is held against the file's size before anything is made of it. Knows nothing of models.
Source: docs/gguf.md in ggml, and gguf-split in llama.cpp.
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quest_core.value_checks import check_whole

SPLIT_NAME = re.compile(r"(?P<prefix>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
VERSIONS = (2, 3)
STRING, ARRAY = 8, 9
# Types of metadata -> numpy's.
SCALARS = {0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8"}
DEFAULT_ALIGNMENT = 32
MAX_DIMENSIONS = 4
# Of values and of tensors: several times what the largest models have.
MAX_HEADER_ITEMS = 1 << 17
# Above every vocabulary, and low enough that a list of as many Python objects does not fill the memory.
MAX_ARRAY_LENGTH = 1 << 22
# Of a token or a merge: the time that a tokenizer takes to be built grows with the square of it.
MAX_ARRAY_STRING_BYTES = 1024
# Of a file of which only the header is wanted: several times the largest vocabulary.
MAX_HEADER_BYTES = 32 << 20
# The least that a value and a tensor take in the header: lengths, types and offsets.
MIN_VALUE_BYTES, MIN_TENSOR_BYTES = 13, 24
AGAIN = ": download or copy it again"


@dataclass(frozen=True)
class GgufTensor:
    """A tensor as it lies in the file.

    Args:
        shape: the slowest dimension first, as torch has it; ggml says it the other way round.
        kind: a gguf.GGMLQuantizationType.
        data: uint8 [bytes], a view of the file.
    """

    name: str
    shape: tuple[int, ...]
    kind: Any
    data: np.ndarray


@dataclass(frozen=True)
class GgufFile:
    """The parts of a GGUF model, the metadata of the first and the tensors of all.

    Args:
        paths: the files, in order.
        metadata: by key; numbers, texts, numpy arrays of numbers, and of an array of texts only their count.
        tensors: by name.
    """

    paths: tuple[Path, ...]
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]


def gguf_parts(path: Path) -> tuple[Path, ...]:
    """All files of the model that `path` is a part of, going by their names.

    Raises:
        ValueError: naming the first that is missing.
    """
    match = SPLIT_NAME.fullmatch(path.name)
    if match is None:
        return (path,)
    parts = []
    for number in range(1, int(match["count"]) + 1):
        part = path.with_name(f"{match['prefix']}-{number:05}-of-{match['count']}{path.suffix}")
        if not part.is_file():
            raise ValueError(f"it is one of {int(match['count'])} parts, and {part.name} is not beside it")
        parts.append(part)
    if path not in parts:
        raise ValueError(f"its name says part {int(match['number'])} of {int(match['count'])}")
    return tuple(parts)


def gguf_name(path: Path) -> str:
    """The model's name, without the part's number."""
    match = SPLIT_NAME.fullmatch(path.name)
    return path.stem if match is None else match["prefix"]


def read_gguf(paths: tuple[Path, ...], headers_only: bool = False) -> GgufFile:
    """Read the headers of all parts of a model.

    Args:
        paths: of the parts, in order.
        headers_only: leave the tensors' data empty, map no file, and read no header longer than `MAX_HEADER_BYTES`.

    Raises:
        ValueError: if a file is damaged, or the parts do not belong to each other.
        OSError: if a file cannot be read.
    """
    metadata, tensors, stated_tensors = {}, {}, set()
    for number, path in enumerate(paths):
        values, of_part = _Header(path, headers_only).read()
        stated = (values.get("split.no", 0), values.get("split.count", 1) or 1)
        for key, value in zip(("split.no", "split.count"), stated, strict=True):
            check_whole(key, value, 0)
        if stated != (number, len(paths)):
            raise ValueError(
                f"{path.name} calls itself part {stated[0] + 1} of {stated[1]}, and is taken as part {number + 1} of "
                f"{len(paths)}: keep the parts in one folder under the names that gguf-split gives them"
            )
        metadata = metadata or values
        if twice := tensors.keys() & of_part.keys():
            raise ValueError(f"{path.name} has the tensor {min(twice)}, which another part has too")
        tensors |= of_part
        if (count := values.get("split.tensors.count")) is not None:
            check_whole("split.tensors.count", count, 0)
            stated_tensors.add(count)
    if wrong := stated_tensors - {len(tensors)}:
        raise ValueError(f"its parts hold {len(tensors)} tensors and should hold {min(wrong)}")
    return GgufFile(paths, metadata, tensors)


class _FileHead:
    """The beginning of a file that nobody vouches for, read as far as it is asked for.

    Unlike a mapped file, one that somebody else cuts off meanwhile ends nobody's process.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = path.stat().st_size
        self._head = b""
        if self._size < 24:
            raise ValueError(f"{path.name} ends too early{AGAIN}")

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, span: slice) -> bytes:
        if span.stop > len(self._head):
            if span.stop > MAX_HEADER_BYTES:
                raise ValueError(f"{self._path.name} has a header of over {MAX_HEADER_BYTES >> 20} MiB; no model has")
            with self._path.open("rb") as file:
                self._head = file.read(min(MAX_HEADER_BYTES, max(1 << 20, 2 * span.stop)))
            if span.stop > len(self._head):
                raise ValueError(f"{self._path.name} ends too early{AGAIN}")
        return self._head[span]


class _Header:
    """Walks through one file from its beginning."""

    def __init__(self, path: Path, headers_only: bool) -> None:
        self._name = path.name
        self._data: mmap.mmap | _FileHead
        if headers_only:
            self._data = _FileHead(path)
            self._at = 0
            return
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size < 24:
                raise ValueError(f"{path.name} ends too early{AGAIN}")
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._at = 0

    def read(self) -> tuple[dict[str, Any], dict[str, GgufTensor]]:
        if self._take(4) != b"GGUF":
            raise ValueError(f"{self._name} does not begin as a GGUF file does")
        version, tensor_count, value_count = struct.unpack("<IQQ", self._take(20))
        if version not in VERSIONS:
            raise ValueError(f"{self._name} is GGUF version {version}; little-endian versions 2 and 3 are read")
        if max(value_count, tensor_count) > MAX_HEADER_ITEMS:
            raise ValueError(f"{self._name} says it has {value_count} values and {tensor_count} tensors; no model has")
        self._check_room("values", value_count, MIN_VALUE_BYTES)
        self._check_room("tensors", tensor_count, MIN_TENSOR_BYTES)
        metadata: dict[str, Any] = {}
        for _ in range(value_count):
            key = self._take_text()
            if key in metadata:
                raise ValueError(f"{self._name} has {key} twice")
            metadata[key] = self._take_value(key, self._take_number("<I"))
        return metadata, self._take_tensors(tensor_count, metadata.get("general.alignment", DEFAULT_ALIGNMENT))

    def _take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise ValueError(f"{self._name} ends too early{AGAIN}")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def _take_number(self, code: str) -> int:
        return struct.unpack(code, self._take(struct.calcsize(code)))[0]

    def _take_text(self) -> str:
        try:
            return self._take(self._take_number("<Q")).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{self._name} has a text in its header that is none{AGAIN}") from error

    def _check_room(self, what: str, count: int, item_bytes: int) -> None:
        if count * item_bytes > len(self._data) - self._at:
            raise ValueError(f"{self._name} ends too early for the {count} {what} that it says it has{AGAIN}")

    def _take_value(self, key: str, kind: int) -> Any:
        if kind == STRING:
            return self._take_text()
        if kind in SCALARS:
            scalar = np.dtype(SCALARS[kind])
            return np.frombuffer(self._take(scalar.itemsize), scalar)[0].item()
        if kind != ARRAY:
            raise ValueError(f"{self._name} has a value of the unknown type {kind} ({key})")
        kind, length = self._take_number("<I"), self._take_number("<Q")
        if length > MAX_ARRAY_LENGTH:
            raise ValueError(f"{self._name} has {length} values in {key}, more than any model")
        if kind == STRING:
            self._skip_texts(key, length)
            return length
        if kind not in SCALARS:
            raise ValueError(f"{self._name} has an array of the unknown type {kind} ({key})")
        scalar = np.dtype(SCALARS[kind])
        self._check_room(f"values of {key}", length, scalar.itemsize)
        return np.frombuffer(self._take(length * scalar.itemsize), scalar)

    def _skip_texts(self, key: str, count: int) -> None:
        self._check_room(f"texts of {key}", count, 8)
        for _ in range(count):
            length = self._take_number("<Q")
            if length > MAX_ARRAY_STRING_BYTES:
                raise ValueError(f"{self._name} has a text of {length} bytes in {key}, longer than any token{AGAIN}")
            self._at += length
        self._take(0)  # the last one may end behind the file

    def _take_tensors(self, count: int, alignment: Any) -> dict[str, GgufTensor]:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise ValueError(f"{self._name} has general.alignment {alignment!r}, which is no power of two")
        descriptions = {}
        for _ in range(count):
            name = self._take_text()
            dimensions = self._take_number("<I")
            if not 1 <= dimensions <= MAX_DIMENSIONS:
                raise ValueError(f"{self._name} has {name} with {dimensions} dimensions")
            shape = struct.unpack(f"<{dimensions}Q", self._take(8 * dimensions))
            kind, offset = self._take_number("<I"), self._take_number("<Q")
            if name in descriptions:
                raise ValueError(f"{self._name} has the tensor {name} twice")
            if kind not in iter(GGMLQuantizationType):
                raise ValueError(f"{self._name} has {name} in the unknown type {kind}")
            descriptions[name] = (shape, GGMLQuantizationType(kind), offset)
        start = -(-self._at // alignment) * alignment
        bytes_left = len(self._data) - start
        tensors, total_bytes = {}, 0
        for name, (shape, kind, offset) in descriptions.items():
            block_length, block_bytes = GGML_QUANT_SIZES[kind]
            if math.prod(shape) == 0 or shape[0] % block_length:
                raise ValueError(f"{self._name} has {name} of the shape {shape}, which {kind.name} cannot have")
            tensor_bytes = math.prod(shape) // block_length * block_bytes
            total_bytes += tensor_bytes
            # All together too, or many names for the same bytes would fill the memory.
            if offset + tensor_bytes > bytes_left or total_bytes > bytes_left:
                raise ValueError(f"{self._name} ends too early for the tensor {name}{AGAIN}")
            data = np.empty(0, np.uint8)
            if not isinstance(self._data, _FileHead):
                data = np.frombuffer(self._data, np.uint8, tensor_bytes, start + offset)
            tensors[name] = GgufTensor(name, shape[::-1], kind, data)
        return tensors
