"""The hub's cache on this disk: where a model's files lie, what of them is there, and how a model becomes a snapshot.

The layout is huggingface_hub's own, so that it and transformers find what is downloaded here: `blobs/` holds files by
checksum, `snapshots/COMMIT/` names them, `refs/main` names the commit. A snapshot is made when all of its files are
whole, so nobody ever finds half a model. Knows nothing of the network.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from app.models.hub.hub_model import HubFile, HubModel, split_model_id

# So much of a disk is left free: a full one stops more than this program.
_LEFT_FREE_BYTES = 1 << 30


class HubCache:
    """The cache in `folder`, which need not exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def default(cls) -> HubCache:
        """Where huggingface_hub keeps it: HF_HUB_CACHE, HF_HOME or the user's own."""
        from huggingface_hub.constants import HF_HUB_CACHE

        return cls(Path(HF_HUB_CACHE))

    def repository_folder(self, repository: str) -> Path:
        """Where everything of a repository lies."""
        return self.folder / f"models--{repository.replace('/', '--')}"

    def blob(self, model: HubModel, file: HubFile) -> Path:
        """Where a whole file lies."""
        return self.repository_folder(model.repository) / "blobs" / file.blob

    def part(self, model: HubModel, file: HubFile) -> Path:
        """Where a file lies while it is downloaded."""
        return self.repository_folder(model.repository) / "blobs" / f"{file.blob}.incomplete"

    def lock(self, model: HubModel, file: HubFile) -> Path:
        """The lock file that huggingface_hub takes, too, while it downloads that file."""
        return self.folder / ".locks" / self.repository_folder(model.repository).name / f"{file.blob}.lock"

    def snapshot(self, model: HubModel) -> Path:
        """The folder that names the files of the model's commit."""
        return self.repository_folder(model.repository) / "snapshots" / model.commit

    def is_whole(self, model: HubModel, file: HubFile) -> bool:
        """Whether a file is there and checked; where there are no symbolic links it may lie in the snapshot."""
        places = (self.blob(model, file), self.snapshot(model) / file.name)
        return any(_size(place) == file.size_bytes for place in places)

    def present_bytes(self, model: HubModel) -> int:
        """How many bytes of the model are there, in whole files and in parts."""
        total = 0
        for file in model.files:
            if self.is_whole(model, file):
                total += file.size_bytes
            else:
                total += min(_size(self.part(model, file)) or 0, file.size_bytes)
        return total

    def free_bytes(self) -> int:
        """What downloads may take of the disk."""
        existing = next(folder for folder in (self.folder, *self.folder.parents) if folder.is_dir())
        return max(0, shutil.disk_usage(existing).free - _LEFT_FREE_BYTES)

    def add_snapshot(self, model: HubModel) -> Path:
        """Name the files of a model, all of which are whole.

        Returns:
            The folder of a model, or the GGUF file of one.
        """
        snapshot = self.snapshot(model)
        snapshot.mkdir(parents=True, exist_ok=True)
        for file in model.files:
            _link(self.blob(model, file), snapshot / file.name)
        reference = self.repository_folder(model.repository) / "refs" / "main"
        reference.parent.mkdir(parents=True, exist_ok=True)
        written = reference.with_name(f"{reference.name}.{os.getpid()}.tmp")
        written.write_text(model.commit, encoding="ascii")
        written.replace(reference)
        return self.place(model)

    def place(self, model: HubModel) -> Path:
        """What a downloaded model is loaded from: its folder, or its GGUF file."""
        gguf = split_model_id(model.model)[1]
        return self.snapshot(model) / gguf if gguf else self.snapshot(model)

    def has(self, model_id: str) -> bool:
        """Whether a model of that id has been downloaded, by whomever."""
        repository, gguf = split_model_id(model_id)
        folder = self.repository_folder(repository)
        with suppress(OSError, ValueError):
            snapshot = folder / "snapshots" / (folder / "refs" / "main").read_text(encoding="ascii").strip()
            if gguf:
                return (snapshot / gguf).is_file()
            return (snapshot / "config.json").is_file() and any(snapshot.glob("*.safetensors"))
        return False

    def remove_parts(self, model: HubModel) -> None:
        """Remove what is there of a model that is not wanted any more, but nothing that a snapshot names."""
        folder = self.repository_folder(model.repository)
        named = {os.path.realpath(path) for path in (folder / "snapshots").glob("*/*") if path.is_symlink()}
        for file in model.files:
            self.part(model, file).unlink(missing_ok=True)
            blob = self.blob(model, file)
            if os.path.realpath(blob) not in named:
                blob.unlink(missing_ok=True)
        for emptied in (folder / "blobs", folder):
            # Others may keep something in them.
            with suppress(OSError):
                emptied.rmdir()


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _link(blob: Path, name: Path) -> None:
    """Name a blob in a snapshot; where there are no symbolic links (Windows), as huggingface_hub does, move it."""
    if not blob.is_file() and name.is_file():
        return
    name.unlink(missing_ok=True)
    try:
        name.symlink_to(os.path.relpath(blob, name.parent))
    except OSError:
        blob.replace(name)
