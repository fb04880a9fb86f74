"""A model's folder in Hugging Face layout: its config and its open checkpoint, or a sentence that names the damage.

No path leaves the folder, except from a snapshot in the hub's cache to the blobs beside it. Never pickle, never remote
code.
"""

from __future__ import annotations

import json
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from quest_core.config import MAX_DIMENSION, ModelConfig
from quest_core.errors import ModelError
from quest_core.model.gguf_conversion import MODEL_CONFIG_FILE
from quest_core.value_checks import check_whole

CONFIG, INDEX, WEIGHTS = "config.json", "model.safetensors.index.json", "model.safetensors"
# What is read if it is there, by us or by transformers.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json")
READ_SUFFIXES = (".json", ".safetensors", ".jinja", ".model", ".txt")
# What of config.json matters here. Transformers sees nothing else: of other keys it makes lists as long as they say.
CONFIG_KEYS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "rms_norm_eps",
    "max_position_embeddings",
    "sliding_window",
    "use_sliding_window",
    "max_window_layers",
    "layer_types",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "partial_rotary_factor",
    "original_max_position_embeddings",
    "tie_word_embeddings",
    "attention_bias",
    "eos_token_id",
)


def check_model_folder(folder: Path) -> None:
    """Look through a folder that somebody else has made, without reading its weights.

    Raises:
        ModelError: naming a file that is missing or damaged, or a link that leaves the folder.
    """
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise ModelError(f"The folder {folder} cannot be read: {error.strerror}.") from error
    if not (folder / CONFIG).is_file():
        raise ModelError(f"The folder {folder} holds no config.json; a Hugging Face model folder is expected.")
    for path in entries:
        if path.suffix in READ_SUFFIXES:
            check_inside(folder, path)
    for name in (CONFIG, *TOKENIZER_FILES):
        if (folder / name).is_file():
            read_json(folder / name)


def read_json(path: Path) -> dict[str, Any]:
    """The table of values in a JSON file.

    Raises:
        ModelError: naming it, if it holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as JSON ({error}). Download or copy the model again.") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path} cannot be read: it holds no table of values. Download or copy the model again.")
    return values


def read_model_config(folder: Path) -> ModelConfig:
    """Shape of the model in `folder`.

    Raises:
        ModelError: if its config cannot be read, or the decoder does not implement it.
    """
    if (of_conversion := folder / MODEL_CONFIG_FILE).is_file():
        with suppress(ValueError, RecursionError):  # another version's
            return ModelConfig.from_json(of_conversion.read_text(encoding="utf-8"))
    values = read_json(folder / CONFIG)
    try:
        return ModelConfig.from_transformers(_transformers_config(values))
    except ImportError:
        raise  # of transformers itself, which says what to install
    except Exception as error:  # transformers raises many kinds for a broken or unknown config.json
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ModelError(f"The model in {folder} cannot be read: {reason}") from error


def _transformers_config(values: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    # Of some families transformers makes a list as long as this.
    check_whole("num_hidden_layers", values.get("num_hidden_layers", 1), 1, MAX_DIMENSION)
    model_type = values.get("model_type")
    if not isinstance(model_type, str):
        raise ValueError(f"model_type must be a text, got {model_type!r}")
    return AutoConfig.for_model(model_type, **{key: values[key] for key in CONFIG_KEYS if key in values})


def open_checkpoint(folder: Path, stack: ExitStack) -> dict[str, Any]:
    """Tensor name -> the open safetensors file that holds it; `stack` closes them.

    Raises:
        ModelError: naming a file that is missing or damaged, or that would lie outside.
    """
    from safetensors import SafetensorError, safe_open

    checkpoint = {}
    for name in checkpoint_files(folder):
        path = folder / name
        if not path.is_file():
            hint = "; only safetensors are read, not pickled .bin files" if list(folder.glob("*.bin")) else ""
            raise ModelError(f"The model folder {folder} lacks {name}{hint}.")
        check_inside(folder, path)
        try:
            file = stack.enter_context(safe_open(path, framework="pt"))
        except (SafetensorError, OSError) as error:
            size = path.stat().st_size
            raise ModelError(
                f"{path} is damaged or incomplete ({size:,} bytes: {error}). Download or copy it again."
            ) from error
        checkpoint.update(dict.fromkeys(file.keys(), file))
    return checkpoint


def checkpoint_files(folder: Path) -> list[str]:
    index = folder / INDEX
    if not index.is_file():
        return [WEIGHTS]
    files = read_json(index).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise ModelError(f"{index} has no weight_map that says which file holds which tensor. Download it again.")
    for name in files.values():
        if not isinstance(name, str) or not name.endswith(".safetensors") or set(name) & set("/\\:\0"):
            raise ModelError(f"{index} names {name!r} as a file of the model, which is no .safetensors beside it.")
    return sorted(set(files.values()))


def check_inside(folder: Path, path: Path) -> None:
    try:
        inside = folder.resolve()
        folders = [inside]
        if inside.parent.name == "snapshots":  # the hub's cache
            folders.append(inside.parent.parent / "blobs")
        target = path.resolve()
    except (OSError, RuntimeError) as error:  # a link to itself
        raise ModelError(f"{path} is a link that leads nowhere.") from error
    if not any(target.is_relative_to(allowed) for allowed in folders):
        raise ModelError(f"{path} is a link to {target}, outside the model's folder. Put the file itself there.")
