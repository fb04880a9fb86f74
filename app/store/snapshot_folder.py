"""What the models have kept of documents they have read, as far as the data folder has to do with it.

The files are the engine's (`quest_core.cache.snapshot_files`, which knows how they are checked); here is where they
are, and that they go with their document.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

SNAPSHOTS_FOLDER = "snapshots"


def forget_document(data_dir: Path, document_id: str) -> int:
    """Remove the snapshots that hold a document.

    Returns:
        Bytes that were freed.

    Raises:
        OSError: if a file cannot be removed.
    """
    folder = data_dir / SNAPSHOTS_FOLDER
    if not folder.is_dir():
        return 0
    from quest_core.cache.snapshot_files import forget_snapshots

    return forget_snapshots(folder, document_id)


def snapshot_sizes(data_dir: Path) -> dict[str, int]:
    """Bytes of the snapshots, by the model and layout that they are for, the largest first."""
    folder = data_dir / SNAPSHOTS_FOLDER
    if not folder.is_dir():
        return {}
    from quest_core.cache.snapshot_files import snapshot_models

    return {f"{model.name} ({model.folder.name[:8]})": model.bytes for model in snapshot_models(folder)}


def verify_snapshots(data_dir: Path, may_repair: bool) -> Iterator[tuple[str, bool]]:
    """Read all snapshots.

    Args:
        data_dir: the data folder.
        may_repair: remove what is damaged; models read the documents again then.

    Yields:
        A sentence for each that is damaged, and whether it was removed.
    """
    folder = data_dir / SNAPSHOTS_FOLDER
    if not folder.is_dir():
        return
    from quest_core.cache import snapshot_files

    for check in snapshot_files.verify_snapshots(folder):
        if not check.fault:
            continue
        found = f"The snapshot {check.path.relative_to(data_dir)} {check.fault}"
        if not may_repair:
            yield f"{found}; it will not be used.", False
            continue
        try:
            check.path.unlink(missing_ok=True)
        except OSError as error:
            yield f"{found}, and cannot be removed: {error.strerror or error}.", False
        else:
            yield f"{found}; it was removed.", True
