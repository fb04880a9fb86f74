"""What the page shows of models to download: those worth it on this machine, and downloads under way."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from app.errors import UserFacingError
from app.models.device_memory import DeviceMemory, device_memory
from app.models.hub.hub_downloads import HubDownloads
from app.models.hub.hub_model import HubModel, split_model_id
from app.models.hub.suggested_models import find_fit, is_slow, is_too_slow, suggested_models
from quest_core.config import EngineConfig, ModelConfig
from quest_core.errors import ModelError
from quest_core.model.model_folder import CONFIG, read_model_config


def downloads_json(downloads: HubDownloads, config: EngineConfig) -> dict[str, Any]:
    """The suggestions, the downloads, and what there is of memory and disk.

    Args:
        downloads: of this run of the app.
        config: what the engine is loaded with.
    """
    memory = _memory(config)
    suggestions, too_large = [], 0
    for model in suggested_models():
        fit = None if is_too_slow(model.config, memory) else find_fit(model.config, memory, config)
        if fit is None:
            too_large += 1
            continue
        suggestions.append(
            {
                "model": model.model,
                "name": model.name,
                "licence": model.licence,
                "download_bytes": model.download_bytes,
                "window_tokens": model.window_tokens,
                "good_for": model.good_for,
                "context_tokens": fit.context_tokens,
                "memory_bytes": fit.needed_bytes,
                "weight_bits": fit.weight_bits,
                "is_slow": is_slow(model.config, memory),
                "is_recommended": model.recommended_for == ("gpu" if memory.is_gpu else "cpu"),
                "is_here": downloads.cache.has(model.model),
                "page": hub_page(model.model),
            }
        )
    # The one to begin with comes first.
    suggestions.sort(key=lambda one: not one["is_recommended"])
    return {
        "refusal": downloads.refusal,
        "memory": {"bytes": memory.total_bytes, "is_gpu": memory.is_gpu, "name": memory.name},
        "free_bytes": downloads.cache.free_bytes(),
        "suggestions": suggestions,
        "too_large": too_large,
        "downloads": downloads.listing(),
    }


def about_json(downloads: HubDownloads, model_id: str, config: EngineConfig) -> dict[str, Any]:
    """What the hub says of a model, for who decides whether to download it.

    Args:
        downloads: of this run of the app.
        model_id: as in `HubModel`.
        config: what the engine is loaded with.

    Raises:
        UserFacingError: it cannot be downloaded, or the hub does not answer in time.
    """
    model: HubModel = downloads.look_up(model_id)
    return {
        "model": model.model,
        "licence": model.licence,
        "is_gated": model.is_gated,
        "family": model.family,
        "window_tokens": model.window_tokens,
        "download_bytes": model.total_bytes,
        "present_bytes": downloads.cache.present_bytes(model),
        "free_bytes": downloads.cache.free_bytes(),
        "is_here": downloads.cache.has(model.model),
        "place": str(downloads.cache.place(model)) if split_model_id(model.model)[1] else model.model,
        "page": hub_page(model.model),
        **_fit_json(model, config),
    }


def _fit_json(model: HubModel, config: EngineConfig) -> dict[str, Any]:
    """Whether a model fits this machine ("fits", None if that is not known), and how."""
    if not model.config:
        return {"fits": None}
    memory, shape = _memory(config), _shape(model)
    fit = find_fit(shape, memory, config)
    if fit is None:
        return {"fits": False}
    return {
        "fits": True,
        "context_tokens": fit.context_tokens,
        "weight_bits": fit.weight_bits,
        "memory_bytes": fit.needed_bytes,
        "is_slow": is_slow(shape, memory),
    }


def _memory(config: EngineConfig) -> DeviceMemory:
    """That of the device asked for; where it is missing, of the one there is: models can be downloaded all the same."""
    try:
        return device_memory(config.device)
    except ModelError:
        return device_memory("auto")


def _shape(model: HubModel) -> ModelConfig:
    """The shape that a model on the hub has.

    Raises:
        UserFacingError: the decoder does not implement it.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / CONFIG).write_text(json.dumps(model.config), encoding="utf-8")
        try:
            return read_model_config(Path(folder))
        except ModelError as error:
            reason = str(error.__cause__ or error).strip().partition("\n")[0]
            raise UserFacingError(f"{model.model} cannot be read: {reason} Choose another model.") from error


def hub_page(model_id: str) -> str:
    """The address where a person reads about a model, with its licence."""
    from huggingface_hub import constants

    # Whoever has a mirror of the hub may have the key to it in its address.
    parts = urlsplit(constants.ENDPOINT)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}/{split_model_id(model_id)[0]}"
