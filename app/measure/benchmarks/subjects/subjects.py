"""What a benchmark measures: a model loaded from disk, or one of random weights in a well-known shape.

Each gives our engine and Transformers' model with a wanted window. A caller that asks for the next lets go of the last
before: they may not fit the memory together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch

from app.measure.benchmarks.instruments.byte_bounds import step_weight_bytes
from app.measure.benchmarks.instruments.timing import free_device_memory
from app.measure.benchmarks.rivals.transformers_rival import load_transformers
from app.measure.benchmarks.subjects.random_model import random_transformers_model, random_weights
from app.measure.benchmarks.subjects.shapes import ModelShape
from app.settings import AppSettings
from quest_core.engine import Engine, choose_device, choose_dtype, read_model_config
from quest_core.model.model_source import find_model


class Subject(Protocol):
    """Something to measure.

    Attributes:
        name: for the rows.
        device: it runs on.
    """

    name: str
    device: torch.device

    def engine(self, context_tokens: int) -> Engine:
        """Ours, with a window of `context_tokens`; the caller closes it."""
        ...

    def transformers_model(self, context_tokens: int) -> torch.nn.Module:
        """Transformers', with the same window."""
        ...


class LoadedSubject:
    """The model that the settings name."""

    def __init__(self, settings: AppSettings, on_progress: Callable[[str], None]) -> None:
        self.name = settings.model
        self.device = choose_device(settings.device)
        self._settings = settings
        self._on_progress = on_progress

    def engine(self, context_tokens: int) -> Engine:
        free_device_memory(self.device)
        config = replace(self._settings.engine_config(context_tokens), cached_contexts=1)
        return Engine.load(self._settings.model, config, self._on_progress)

    def transformers_model(self, context_tokens: int) -> torch.nn.Module:
        free_device_memory(self.device)
        config = self._settings.engine_config(context_tokens)
        _, folder = find_model(
            self._settings.model, config.cache_dir, offline=config.offline, on_progress=self._on_progress
        )
        model_config = read_model_config(folder).with_context(context_tokens)
        return load_transformers(folder, model_config, self.device, choose_dtype(config.dtype, self.device))


class RandomSubject:
    """A shape with random weights. They are kept from one engine to the next, until `release`.

    Raises:
        UserFacingError: if this version has no weights of `weight_bits`.
    """

    def __init__(self, shape: ModelShape, settings: AppSettings, weight_bits: int = 16) -> None:
        self.name = shape.name
        self.device = choose_device(settings.device)
        self.dtype = choose_dtype(settings.dtype, self.device)
        self.weight_bits = weight_bits
        self._shape = shape
        self._config = replace(settings.engine_config(), weight_bits=weight_bits, cached_contexts=1)
        self._weights: torch.nn.Module | None = None

    @property
    def vocab_size(self) -> int:
        """Token ids of the shape."""
        return self._shape.sizes["vocab_size"]

    def engine(self, context_tokens: int, snapshot_dir: Path | None = None) -> Engine:
        free_device_memory(self.device)
        model_config = self._shape.model_config(context_tokens)
        if self._weights is None:
            self._weights = random_weights(model_config, self.device, self.dtype, self.weight_bits)
        config = replace(self._config, context_tokens=context_tokens, snapshot_dir=snapshot_dir)
        return Engine(self.name, Path(self.name), model_config, config, self._weights)

    def transformers_model(self, context_tokens: int) -> torch.nn.Module:
        free_device_memory(self.device)
        return random_transformers_model(self._shape, context_tokens, self.device, self.dtype)

    def release(self) -> None:
        """Let our weights go."""
        self._weights = None
        free_device_memory(self.device)

    def weight_bytes_read(self) -> int:
        """What a step of ours reads of the weights; an engine has been made before."""
        tied = self._weights.lm_head is None
        return step_weight_bytes(self._weights.bytes, self._weights.embedding.nbytes, tied)


def transformers_weight_bytes_read(model: torch.nn.Module) -> int:
    """What a step of Transformers reads of the weights."""
    total = sum(parameter.nbytes for parameter in model.parameters())
    return step_weight_bytes(total, model.model.embed_tokens.weight.nbytes, model.config.tie_word_embeddings)
