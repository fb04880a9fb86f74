"""Where models lie on this machine: the places that are looked through, each as far as its limits allow.

A place may be anything, a folder with a million files or one that a link leads back into among them: no more than so
many entries are looked at, no link to a folder is followed, and what cannot be read is passed over. Tells candidates;
what they are, their headers say (`quest_core.model.model_outline`).
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from quest_core.model.converted_models import MANIFEST
from quest_core.model.gguf_conversion import MODEL_CONFIG_FILE
from quest_core.model.gguf_file import SPLIT_NAME, gguf_name
from quest_core.model.model_folder import CONFIG
from quest_core.model.model_source import EMBEDDED_MODEL, EMBEDDED_NAME, embedded_model_path

# Of one place. LM Studio has owner/repository/file.
MAX_ENTRIES, MAX_DEPTH, MAX_PLACE_S = 20_000, 3, 10.0
_COMMIT = re.compile(r"[0-9a-f]{40,64}")
_REPOSITORY = re.compile(r"models--([^/\\]+?)--([^/\\]+)")
# Models of other kinds that stand beside language models: projectors of pictures.
_NO_LANGUAGE_MODEL = re.compile(r"mmproj", re.IGNORECASE)


@dataclass(frozen=True)
class Candidate:
    """What may be a model.

    Args:
        reference: as `--model` takes it.
        name: for people.
        path: of its folder or file.
        place: where it was found, for people.
    """

    reference: str
    name: str
    path: Path
    place: str


@dataclass(frozen=True)
class Place:
    """A folder that is looked through.

    Args:
        folder: which.
        name: for people.
        is_hub_cache: whether it has the layout of the hub's cache.
    """

    folder: Path
    name: str
    is_hub_cache: bool = False


def common_places(data_dir: Path) -> list[Place]:
    """Where models usually are, whether the folders exist or not."""
    from huggingface_hub.constants import HF_HUB_CACHE

    places = [Place(data_dir / "models", "Data folder"), Place(Path(HF_HUB_CACHE), "Hugging Face cache", True)]
    with suppress(RuntimeError):  # no home folder
        home = Path.home()
        places += [
            Place(home / ".cache" / "llama.cpp", "llama.cpp"),
            Place(home / ".lmstudio" / "models", "LM Studio"),
            Place(home / ".cache" / "lm-studio" / "models", "LM Studio"),
            # Its models are blobs without a name, except where somebody keeps plain files there.
            Place(home / ".ollama" / "models", "Ollama"),
        ]
    return places


def embedded_candidate() -> Candidate | None:
    """The model that comes with the installation, if it is installed."""
    path = embedded_model_path()
    return None if path is None else Candidate(EMBEDDED_MODEL, EMBEDDED_NAME, path, "Comes with Quest Chat")


def look_through(place: Place) -> tuple[list[Candidate], str]:
    """What may be a model in a place.

    Returns:
        The candidates, and a sentence if not all of the place was looked at; "" otherwise.
    """
    if place.folder.suffix.lower() == ".gguf" and place.folder.is_file():
        return [Candidate(str(place.folder), gguf_name(place.folder), place.folder, place.name)], ""
    walk = _Walk(place)
    candidates = list(walk.repositories() if place.is_hub_cache else walk.models(place.folder, 0))
    return candidates, walk.note


class _Walk:
    """One look through a place."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._entries = 0
        self._end = time.monotonic() + MAX_PLACE_S
        self.note = ""

    def models(self, folder: Path, depth: int) -> Iterator[Candidate]:
        """Models in a folder, or the folder itself."""
        files, folders = self._list(folder)
        names = {entry.name for entry in files}
        # Conversions of .gguf files, which stand in the list themselves.
        if MANIFEST in names and MODEL_CONFIG_FILE in names:
            return
        if CONFIG in names:
            yield Candidate(str(folder), folder.name, folder, self._place.name)
        for path in _ggufs(files, folder):
            yield Candidate(str(path), gguf_name(path), path, self._place.name)
        if depth < MAX_DEPTH and CONFIG not in names:
            for entry in folders:
                yield from self.models(folder / entry.name, depth + 1)

    def repositories(self) -> Iterator[Candidate]:
        """Models in the hub's cache: of each repository the commit that its main branch had last."""
        # huggingface_hub's own look through it takes the size of every file of every data set that is there.
        for entry in self._list(self._place.folder)[1]:
            named = _REPOSITORY.fullmatch(entry.name)
            if named is None:
                continue
            folder = self._place.folder / entry.name
            commit = ""
            with suppress(OSError, ValueError):
                reference = folder / "refs" / "main"
                if reference.is_file() and reference.stat().st_size <= 100:
                    commit = reference.read_text(encoding="ascii").strip()
            if not _COMMIT.fullmatch(commit):
                continue
            snapshot, owner_name = folder / "snapshots" / commit, f"{named[1]}/{named[2]}"
            files, _ = self._list(snapshot)
            if any(one.name == CONFIG for one in files) and any(one.name.endswith(".safetensors") for one in files):
                yield Candidate(owner_name, named[2], snapshot, self._place.name)
            for path in _ggufs(files, snapshot):
                yield Candidate(str(path), gguf_name(path), path, f"{self._place.name}, {owner_name}")

    def _list(self, folder: Path) -> tuple[list[os.DirEntry], list[os.DirEntry]]:
        """Files and folders of a folder in the order of their names."""
        files: list[os.DirEntry] = []
        folders: list[os.DirEntry] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    self._entries += 1
                    if self._entries > MAX_ENTRIES or time.monotonic() > self._end:
                        self.note = f"{self._place.folder} holds very many files: not all of them were looked at."
                        break
                    if not _is_text(entry.name):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry)
                    elif entry.name == CONFIG or entry.name.lower().endswith((".json", ".gguf", ".safetensors")):
                        files.append(entry)
        except OSError:
            # It is not there, or not ours to read.
            pass
        return sorted(files, key=_name_of), sorted(folders, key=_name_of)


def _ggufs(files: list[os.DirEntry], folder: Path) -> Iterator[Path]:
    """Plain .gguf files, of a split one the first part."""
    for entry in files:
        if not entry.name.lower().endswith(".gguf") or _NO_LANGUAGE_MODEL.search(entry.name):
            continue
        split = SPLIT_NAME.fullmatch(entry.name)
        if split and int(split["number"]) != 1:
            continue
        with suppress(OSError):
            if stat.S_ISREG(entry.stat().st_mode):
                yield folder / entry.name


def _is_text(name: str) -> bool:
    """Whether a name can be shown, and sent: a file system may hold bytes that are none."""
    return name.isprintable() and not any("\ud800" <= character <= "\udfff" for character in name)


def _name_of(entry: os.DirEntry) -> str:
    return entry.name
