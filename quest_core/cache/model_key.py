"""A name for a model as it computes here: two that may fill a cache page differently have different ones.

The model's files go in by their contents. Their hashes are cached by path, size and time, in a file that is only ever a
shortcut: where it is damaged or cannot be written, they are computed again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from quest_core.cache.snapshot_files import FORMAT, PARTIAL, open_regular
from quest_core.model.converted_models import MANIFEST

HASHES = "model-files.json"
MAX_HASHES_BYTES = 1 << 22
# What a model is loaded from; other files may lie beside these, and be large.
_OF_THE_MODEL = (".json", ".safetensors", ".jinja", ".model", ".txt")


def model_key(folder: Path, settings: Mapping[str, Any], cache_dir: Path, may_write: bool = True) -> str:
    """64 hex digits.

    Args:
        folder: the model's files: weights, configuration, tokenizer.
        settings: what else decides what is computed and how it is kept; texts, numbers, and tuples of these.
        cache_dir: where hashes of files are cached.
        may_write: without, the cache is only read.

    Raises:
        OSError: if a file of the model cannot be read.
    """
    known = _read_hashes(cache_dir / HASHES)
    hashes, fresh = {}, dict(known)
    for path in sorted(folder.glob("*")):
        if path.suffix not in _OF_THE_MODEL or path.name == MANIFEST or not path.is_file():
            continue
        found = path.stat()
        entry = f"{path.resolve()} {found.st_size} {found.st_mtime_ns}"
        fresh[entry] = hashes[path.name] = known.get(entry) or _hash(path)
    if may_write and fresh != known:
        with suppress(OSError):
            cache_dir.mkdir(parents=True, exist_ok=True)
            _write_hashes(cache_dir / HASHES, fresh)
    described = json.dumps([FORMAT, hashes, settings], sort_keys=True, default=str)
    return hashlib.sha256(described.encode()).hexdigest()


def _read_hashes(path: Path) -> dict[str, str]:
    try:
        with open_regular(path) as file:
            hashes = json.loads(file.read(MAX_HASHES_BYTES))
        return {str(entry): digest for entry, digest in hashes.items() if isinstance(digest, str) and len(digest) == 64}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


def _write_hashes(path: Path, hashes: Mapping[str, str]) -> None:
    partial = path.with_name(path.name + PARTIAL)
    try:
        partial.write_text(json.dumps(hashes, indent=1), encoding="utf-8")
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
