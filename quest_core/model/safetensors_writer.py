"""Write a safetensors file one tensor at a time, so that a large model need not be in memory as a whole.

The header, which comes first, follows from names, shapes and types alone. Source: the format's description in
huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# Widest first, so that every tensor starts at a multiple of its numbers' size.
TYPE_BYTES = {"F32": 4, "F16": 2}
ALIGNMENT = 8


def write_safetensors(path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...], Callable[[], Any]]]) -> None:
    """Write `path`.

    Args:
        tensors: name -> ("F32" or "F16", shape, and what reads the numbers as a contiguous numpy array of that type).

    Raises:
        OSError: if it cannot be written.
    """
    ordered = sorted(tensors.items(), key=lambda item: -TYPE_BYTES[item[1][0]])
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (kind, shape, _) in ordered:
        start, end = end, end + math.prod(shape) * TYPE_BYTES[kind]
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, (_, _, read) in ordered:
            file.write(memoryview(read()).cast("B"))
