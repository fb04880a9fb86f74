"""A model on the hub as it is downloaded: a commit, its licence, and the files that are needed of it.

Only configs, tokenizers, safetensors and GGUF files: never pickle, never code. What the hub tells is checked here, as
names become paths. Knows nothing of the network or the disk.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from quest_core.config import SUPPORTED_FAMILIES
from quest_core.model.gguf_file import SPLIT_NAME
from quest_core.model.model_folder import CONFIG_KEYS
from quest_core.model.model_source import HUB_FILES, HUB_IGNORED

_COMMIT = re.compile(r"[0-9a-f]{40}")
# Of a file in LFS its SHA-256, of any other what git calls it. The cache names its blobs so.
_BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_FILE_NAME = re.compile(r"[\w][\w.+ -]{0,199}")
_MODEL_ID = re.compile(r"([\w][\w.-]{0,95}/[\w][\w.-]{0,95})(?:/([\w][\w.+ -]{0,195}\.gguf))?", re.ASCII)
_MOST_FILES = 2000


class HubError(Exception):
    """A model cannot be downloaded.

    Args:
        reason: a word for programs: "offline", "unreachable", "unknown", "gated", "unsupported", "choose", "disk",
            "in use", "changed", "checksum", "later" or "failed".
        message: a sentence that says what is wrong and what to do.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class HubFile:
    """One file of a commit.

    Args:
        name: as in the repository; never in a folder.
        size_bytes: of the whole file.
        blob: its SHA-256 if it is in LFS (64 digits), else the SHA-1 that git gives it (40 digits).
    """

    name: str
    size_bytes: int
    blob: str

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and _FILE_NAME.fullmatch(self.name) and ".." not in self.name):
            raise ValueError(f"{self.name!r} is no name of a file")
        if not isinstance(self.size_bytes, int) or not 0 <= self.size_bytes < 1 << 50:
            raise ValueError(f"{self.size_bytes!r} is no size of {self.name}")
        if not (isinstance(self.blob, str) and _BLOB.fullmatch(self.blob)):
            raise ValueError(f"{self.blob!r} is no checksum of {self.name}")

    def new_digest(self) -> Any:
        """What comes to `blob` when it is updated with all bytes of the file (`hexdigest`)."""
        if len(self.blob) == 64:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % self.size_bytes, usedforsecurity=False)


@dataclass(frozen=True)
class HubModel:
    """What is downloaded of a model.

    Args:
        model: hub id, "owner/name", or of one GGUF file "owner/name/file.gguf".
        commit: of the repository.
        licence: as its model card states it, e.g. "apache-2.0"; "" if it does not.
        is_gated: whether the hub gives it only to those who have accepted its licence.
        config: of its config.json what matters here; empty of a GGUF file, which says so itself.
        files: in the order in which they are downloaded: small ones first.
    """

    model: str
    commit: str
    licence: str
    is_gated: bool
    config: dict[str, Any]
    files: tuple[HubFile, ...]

    def __post_init__(self) -> None:
        split_model_id(self.model)
        if not _COMMIT.fullmatch(self.commit):
            raise ValueError(f"{self.commit!r} is no commit")
        if not 0 < len(self.files) <= _MOST_FILES:
            raise ValueError(f"{self.model} has {len(self.files)} files")

    @property
    def repository(self) -> str:
        """The hub id of the repository, "owner/name"."""
        return split_model_id(self.model)[0]

    @property
    def family(self) -> str:
        """The "model_type" of its config; "" if that is not known."""
        return self.config.get("model_type", "")

    @property
    def window_tokens(self) -> int:
        """The window that it was made for; 0 if that is not known."""
        window = self.config.get("max_position_embeddings")
        return window if isinstance(window, int) else 0

    @property
    def total_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """For `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> HubModel:
        """Read what `to_json` wrote.

        Raises:
            ValueError: if it is something else.
        """
        try:
            files = tuple(HubFile(**file) for file in values["files"])
            return cls(**{**values, "files": files})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a model on the hub: {error}") from error


def split_model_id(model: str) -> tuple[str, str]:
    """The repository, and the GGUF file in it or "".

    Raises:
        HubError: if it is no hub id.
    """
    match = _MODEL_ID.fullmatch(model)
    if match is None or "--" in model or ".." in model:
        raise HubError(
            "unknown",
            f"There is no model {model[:100]!r} on the hub: an id is written owner/name, like Qwen/Qwen3-4B, or "
            "owner/name/file.gguf.",
        )
    return match[1], match[2] or ""


def needed_files(model: str, names: Iterable[str]) -> list[str]:
    """Which files of a repository are downloaded.

    Args:
        model: as in `HubModel`.
        names: of all files.

    Raises:
        HubError: there are none that could be read, or one of several must be named.
    """
    from huggingface_hub.utils import filter_repo_objects

    repository, gguf = split_model_id(model)
    names = list(names)
    if gguf:
        return _gguf_files(repository, gguf, names)
    needed = list(filter_repo_objects(names, allow_patterns=HUB_FILES, ignore_patterns=HUB_IGNORED))
    if "config.json" in needed and any(name.endswith(".safetensors") for name in needed):
        return needed
    ggufs = [name for name in names if name.endswith(".gguf") and _FILE_NAME.fullmatch(name)]
    if ggufs:
        first = [name for name in ggufs if (match := SPLIT_NAME.fullmatch(name)) is None or int(match["number"]) == 1]
        listed = ", ".join(sorted(first)[:12]) + (" and more" if len(first) > 12 else "")
        raise HubError("choose", f"{repository} holds GGUF files. Name one, as {repository}/{first[0]}: {listed}.")
    if any(name.endswith((".bin", ".pt", ".pth")) for name in names):
        reason = "its weights are pickled .bin files, which can run code and are never read; safetensors are"
    else:
        reason = "it holds no config.json with safetensors, and no GGUF file"
    raise HubError("unsupported", f"{repository} cannot be used: {reason}. Choose another model.")


def _gguf_files(repository: str, gguf: str, names: list[str]) -> list[str]:
    if gguf not in names:
        raise HubError("unknown", f"{repository} has no file {gguf}. Check the spelling on its page on the hub.")
    match = SPLIT_NAME.fullmatch(gguf)
    if match is None:
        return [gguf]
    count = int(match["count"])
    parts = [f"{match['prefix']}-{number:05}-of-{match['count']}.gguf" for number in range(1, count + 1)]
    if missing := set(parts) - set(names):
        raise HubError("unsupported", f"{repository} lacks {min(missing)}, a part of {gguf}. Choose another file.")
    return parts


def config_that_matters(model: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Of a config.json what the decoder looks at.

    Raises:
        HubError: the decoder does not know its family.
    """
    family = config.get("model_type")
    if family not in SUPPORTED_FAMILIES:
        known = "; ".join(SUPPORTED_FAMILIES.values())
        raise HubError(
            "unsupported",
            f"{model} is of a family that Quest Chat cannot read ({str(family)[:40]!r}). It reads: {known}.",
        )
    return {key: config[key] for key in ("model_type", *CONFIG_KEYS) if key in config}
