"""llama.cpp as the rival, through llama-cpp-python: its model, and the time of its prefill and decode steps.

Never a requirement: whoever asks for this rival installs it. It reads the GGUF file itself, in its own formats, and is
given the token ids, threads, window and RoPE of ours.
"""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app.errors import UserFacingError
from quest_core.config import ModelConfig
from quest_core.model.model_source import EMBEDDED_MODEL, embedded_model_path


def require_llamacpp() -> Any:
    """The module `llama_cpp`.

    Raises:
        UserFacingError: if it cannot be imported.
    """
    try:
        return importlib.import_module("llama_cpp")
    except (ImportError, OSError, RuntimeError) as error:  # the last two, if its library does not load
        raise UserFacingError(
            f"--rival-llamacpp needs the package llama-cpp-python, which cannot be imported here ({error}). Install it "
            "with `pip install llama-cpp-python` (it compiles llama.cpp, which takes minutes and a C++ compiler), or "
            "leave --rival-llamacpp out."
        ) from error


def find_gguf(model: str) -> Path:
    """The GGUF file that `--model` names.

    Raises:
        UserFacingError: if it names none.
    """
    path = embedded_model_path() if model == EMBEDDED_MODEL else Path(model).expanduser()
    if path is None or path.suffix.lower() != ".gguf" or not path.is_file():
        raise UserFacingError(f"--rival-llamacpp reads GGUF files only, and --model {model} is none.")
    return path


class LlamaCppModel:
    """A GGUF model in llama.cpp, with one sequence.

    Args:
        path: the file.
        model_config: window and RoPE.
        threads: as many as ours has.
    """

    def __init__(self, path: Path, model_config: ModelConfig, threads: int) -> None:
        module = require_llamacpp()
        rope = model_config.rope
        stretched = {}
        if rope.kind == "yarn":
            stretched = {
                "rope_scaling_type": module.LLAMA_ROPE_SCALING_TYPE_YARN,
                "rope_freq_scale": 1.0 / rope.factor,
                "yarn_orig_ctx": rope.original_max_tokens,
            }
        self._llama = module.Llama(
            str(path),
            n_ctx=model_config.context_tokens,
            n_threads=threads,
            n_threads_batch=threads,
            verbose=False,
            **stretched,
        )
        self._first_token = -1  # drawn by the prefill

    def prefill(self, token_ids: list[int]) -> float:
        """Seconds until the logits after the last of `token_ids` are there."""
        self._llama.reset()
        start = time.perf_counter()
        self._llama.eval(token_ids)
        self._first_token = int(self._last_logits().argmax())
        return time.perf_counter() - start

    def time_decode_steps(self, steps: int) -> list[float]:
        """Seconds of each greedy step after the prefill; the sequence is as long afterwards as it was."""
        llama, times = self._llama, []
        length_tokens, token = llama.n_tokens, self._first_token
        for _ in range(steps):
            start = time.perf_counter()
            llama.eval([token])
            token = int(self._last_logits().argmax())
            times.append(time.perf_counter() - start)
        llama.n_tokens = length_tokens  # what lies beyond is dropped at the next call
        return times

    def logits(self) -> torch.Tensor:
        """float32 [vocab_size], after the last token that was fed."""
        return torch.from_numpy(self._last_logits().copy())

    def close(self) -> None:
        self._llama.close()

    def _last_logits(self) -> np.ndarray:
        return np.ctypeslib.as_array(self._llama._ctx.get_logits(), shape=(self._llama.n_vocab(),))
