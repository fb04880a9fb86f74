"""What the models have kept of documents they have read, as far as the store has to do with it.

The files are the engine's; here is only where they are, and that they go with their document.
"""

from __future__ import annotations

from pathlib import Path

SNAPSHOTS_FOLDER = "snapshots"


def forget_document(data_dir: Path, document_id: str) -> int:
    """Remove the snapshots that hold a document.

    Returns:
        Bytes that were freed.

    Raises:
        OSError: if a file cannot be removed.
    """
    snapshot_dir = data_dir / SNAPSHOTS_FOLDER
    if not snapshot_dir.is_dir():
        return 0
    # Not before there are any: the engine's files import torch.
    from quest_core.snapshot_files import forget_snapshots

    return forget_snapshots(snapshot_dir, document_id)
