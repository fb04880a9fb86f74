"""The models on this machine: looked for in a thread, told from what is known so far.

Places are looked through again when somebody asks and the last look is old; a model whose files have not changed is not
opened again. Whatever is wrong with a model is told beside its name: a folder in the list that cannot be used says why.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from app.errors import UserFacingError
from app.models.model_choice import MAX_FOLDERS, MAX_PATH_CHARACTERS
from app.models.model_places import MAX_ENTRIES, Candidate, Place, common_places, embedded_candidate, look_through
from quest_core.errors import ModelError

if TYPE_CHECKING:
    from quest_core.model.model_outline import ModelOutline

# A look that is younger is not repeated: the page asks whenever it is opened.
LOOK_AGAIN_S = 5.0
# Of all places together; the list is read by people.
MAX_MODELS = 500


@dataclass(frozen=True)
class LocalModel:
    """A model that was found.

    Args:
        candidate: where.
        outline: what its headers say; None if it cannot be used.
        reason: why not, a sentence; "" if it can.
    """

    candidate: Candidate
    outline: ModelOutline | None
    reason: str = ""

    @property
    def reference(self) -> str:
        """As `--model` takes it."""
        return self.candidate.reference


class LocalModels:
    """Finds models.

    Args:
        data_dir: has a folder for models of its own.
        folders: that the user has named.
        on_change: called, in the thread that looks, when more is known.
        places: where models usually are; None for this machine's.
    """

    def __init__(
        self,
        data_dir: Path,
        folders: Iterable[str],
        on_change: Callable[[], None],
        places: list[Place] | None = None,
    ) -> None:
        self._data_dir = data_dir
        self._given_places = places
        self._on_change = on_change
        self._lock = threading.Lock()
        self._folders = list(folders)
        self._models: dict[str, LocalModel] = {}
        self._notes: list[str] = []
        self._known: dict[Path, tuple[tuple, LocalModel]] = {}
        self._looked_at = -LOOK_AGAIN_S
        self._is_complete = False
        self._wanted = False
        self._thread: threading.Thread | None = None
        self._closed = False

    def look(self, now: bool = False) -> None:
        """Look again unless that was done a moment ago; returns at once.

        Args:
            now: also if it was: something is known to have changed.
        """
        with self._lock:
            if self._closed or (not now and time.monotonic() - self._looked_at < LOOK_AGAIN_S):
                return
            self._looked_at = time.monotonic()
            self._wanted = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="model-listing", daemon=True)
                self._thread.start()

    @property
    def is_looking(self) -> bool:
        """Whether more may come."""
        with self._lock:
            return self._thread is not None or not self._is_complete

    def models(self) -> list[LocalModel]:
        """What is known: those that can be used first, by name."""
        with self._lock:
            models = list(self._models.values())
        return sorted(models, key=lambda one: (one.outline is None, one.candidate.name.lower(), one.reference))

    def notes(self) -> list[str]:
        """What should be told of the places that were looked through, as sentences."""
        with self._lock:
            return list(self._notes)

    def find(self, reference: str) -> LocalModel:
        """A model that can be used.

        Raises:
            UserFacingError: there is none of that reference, or it cannot be used.
        """
        with self._lock:
            model = self._models.get(reference)
        if model is None:
            raise UserFacingError("This model is not among those on this machine. Open the list again and choose one.")
        if model.outline is None:
            raise UserFacingError(model.reason)
        return model

    @property
    def folders(self) -> tuple[str, ...]:
        """Those that the user has named, the last one first."""
        with self._lock:
            return tuple(self._folders)

    def add_folder(self, path: str) -> str:
        """Look through another folder from now on, or a .gguf file.

        Returns:
            The path as it is kept.

        Raises:
            UserFacingError: there is none.
        """
        if not 0 < len(path := path.strip().strip('"')) <= MAX_PATH_CHARACTERS or "\0" in path:
            raise UserFacingError("Type the path of a model's folder, of a folder with models, or of a .gguf file.")
        try:
            # Without following links: what the user has named is what is shown.
            folder = Path(path).expanduser().absolute()
            is_there = folder.is_dir() or (folder.suffix.lower() == ".gguf" and folder.is_file())
        except (OSError, RuntimeError, ValueError):
            is_there = False
        if not is_there:
            raise UserFacingError(f"There is no folder and no .gguf file {path} on this machine. Check the path.")
        with self._lock:
            self._folders = [str(folder), *(one for one in self._folders if one != str(folder))][:MAX_FOLDERS]
        self.look(now=True)
        return str(folder)

    def remove_folder(self, path: str) -> None:
        """Look through a folder no longer; does nothing to the folder."""
        with self._lock:
            self._folders = [one for one in self._folders if one != path]
        self.look(now=True)

    def wait(self, timeout_s: float) -> bool:
        """Wait until nobody looks; False after that time."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(timeout_s)
        return thread is None or not thread.is_alive()

    def close(self) -> None:
        """Look no more."""
        with self._lock:
            self._closed = True

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._closed or not self._wanted:
                    self._thread, self._is_complete = None, True
                    break
                self._wanted = False
                places = [Place(Path(folder), "Your folder") for folder in self._folders]
            self._look_through(self._places() + places)
        self._on_change()

    def _places(self) -> list[Place]:
        return common_places(self._data_dir) if self._given_places is None else self._given_places

    def _look_through(self, places: list[Place]) -> None:
        found: dict[str, LocalModel] = {}
        notes: list[str] = []
        embedded = embedded_candidate()
        if embedded is not None:
            self._take(found, [embedded])
        seen: set[Path] = set()
        for place in places:
            if self._closed:
                return
            candidates, note = look_through(place)
            notes += [note] if note else []
            fresh = []
            for candidate in candidates:
                try:
                    real = candidate.path.resolve()
                except (OSError, RuntimeError):
                    continue
                if real not in seen:
                    seen.add(real)
                    fresh.append(candidate)
            self._take(found, fresh)
        if len(found) >= MAX_MODELS:
            notes.append(f"There are more than {MAX_MODELS} models in these places; the others are not shown.")
        with self._lock:
            self._models, self._notes = found, notes

    def _take(self, found: dict[str, LocalModel], candidates: list[Candidate]) -> None:
        for candidate in candidates:
            if self._closed or len(found) >= MAX_MODELS:
                return
            model = self._understood(candidate)
            found[candidate.reference] = model
            with self._lock:
                # The first look shows what it has; a later one takes nothing away before its end.
                self._models.setdefault(candidate.reference, model)

    def _understood(self, candidate: Candidate) -> LocalModel:
        # Brings torch, which the page must not wait for.
        from quest_core.model.model_outline import read_outline

        signature = _signature(candidate.path)
        known = self._known.get(candidate.path)
        if known is not None and known[0] == signature and known[1].candidate == candidate:
            return known[1]
        try:
            model = LocalModel(candidate, read_outline(candidate.path))
        except ModelError as error:
            model = LocalModel(candidate, None, str(error))
        except Exception as error:  # whatever somebody has put there must not hide the other models
            what = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
            model = LocalModel(candidate, None, f"{candidate.name} cannot be read as a model: {what}")
        self._known[candidate.path] = signature, model
        return model


def _signature(path: Path) -> tuple:
    """Changes whenever a model's files do."""
    try:
        if not path.is_dir():
            return (path.stat().st_size, path.stat().st_mtime_ns)
        with os.scandir(path) as entries:
            files = [one for one in islice(entries, MAX_ENTRIES) if one.name.endswith((".json", ".safetensors"))]
        return tuple(sorted((one.name, one.stat().st_size, one.stat().st_mtime_ns) for one in files))
    except OSError:
        return ()
