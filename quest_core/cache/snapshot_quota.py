"""Which snapshot files go when they are more than their quota: those used longest ago, ends of chains first.

A file is of use only with all those before it, so one with files after it never goes before them. Knows nothing of what
is in the files but their place in the chain.
"""

from __future__ import annotations

import heapq
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from quest_core.cache.snapshot_files import header_of, sized_files

SLACK_FRACTION = 0.05


@dataclass
class _File:
    path: Path
    bytes: int
    used_ns: int
    parent: str = ""
    children: int = 0


def make_room(snapshot_dir: Path, folder: Path, parent: str, size: int, quota_bytes: int) -> bool:
    """Remove files of any model until one more fits.

    Args:
        snapshot_dir: of all models.
        folder, parent: where the file is to be, and the key before it; what leads to it stays.
        size: of the new file, in bytes.
        quota_bytes: of all files.

    Returns:
        Whether it fits.
    """
    found = list(sized_files(snapshot_dir))
    excess = sum(file_bytes for _, file_bytes in found) + size - quota_bytes
    if excess <= 0:
        return True
    # Some more, so that not every file that follows has to look through all of them.
    wanted = excess + int(quota_bytes * SLACK_FRACTION)
    files: dict[tuple[Path, str], _File] = {}
    for path, file_bytes in found:
        with suppress(OSError):
            files[path.parent, path.stem] = _File(path, file_bytes, path.lstat().st_mtime_ns)
    for (of_folder, _), file in files.items():
        header = header_of(file.path)
        # A file that does not tell is of no use to anybody.
        file.parent, file.used_ns = ("", 0) if header is None else (header.parent, file.used_ns)
        if (before := files.get((of_folder, file.parent))) is not None:
            before.children += 1
    needed = (folder, parent)
    while needed in files:
        files[needed].children += 1
        needed = (folder, files[needed].parent)
    leaves = [(file.used_ns, str(file.path), key) for key, file in files.items() if not file.children]
    heapq.heapify(leaves)
    freed = 0
    while freed < wanted and leaves:
        _, _, (of_folder, name) = heapq.heappop(leaves)
        file = files[of_folder, name]
        with suppress(OSError):
            file.path.unlink(missing_ok=True)
            freed += file.bytes
            before = files.get((of_folder, file.parent))
            if before is not None:
                before.children -= 1
                if not before.children:
                    heapq.heappush(leaves, (before.used_ns, str(before.path), (of_folder, file.parent)))
    return freed >= excess
