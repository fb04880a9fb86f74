"""Which tokens end an answer, by a model folder's generation_config.json.

Makers name several there, e.g. the end of a text and that of a turn, where config.json has one. Nothing of the file is
needed to run a model, so that a damaged one is passed over. Knows nothing of chat templates.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from quest_core.config import ModelConfig

GENERATION_CONFIG_FILE = "generation_config.json"
# Real ones have some hundred bytes.
_MOST_BYTES = 1 << 20


def read_stop_token_ids(folder: Path, vocab_size: int) -> tuple[int, ...]:
    """The tokens that the folder's generation_config.json ends an answer with; none if it is missing or damaged.

    Args:
        folder: of a model, in Hugging Face layout.
        vocab_size: tokens beyond it are left out.
    """
    try:
        with (folder / GENERATION_CONFIG_FILE).open("rb") as file:
            ids = json.loads(file.read(_MOST_BYTES))["eos_token_id"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ()
    ids = ids if isinstance(ids, list) else [ids]
    return tuple(sorted({number for number in ids if type(number) is int and 0 <= number < vocab_size}))


def with_all_stop_tokens(model_config: ModelConfig, folder: Path) -> ModelConfig:
    """The same model with the stop tokens of `folder`'s generation_config.json beside its own."""
    both = {*model_config.eos_token_ids, *read_stop_token_ids(folder, model_config.vocab_size)}
    return replace(model_config, eos_token_ids=tuple(sorted(both)))
