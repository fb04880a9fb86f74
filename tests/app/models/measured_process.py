"""A process of its own that loads models and says what memory they took: `python -m tests.app.models.measured_process`.

Reads one JSON object from stdin: "models", each with "model", "context_tokens" and "cache_dir"; the first is only to
have all libraries loaded, and is not told. Writes one line for each other: "resident", the bytes that were resident at
the most while the last chunk of a full window was read and a few tokens were decoded, over what was before the model;
and "accounted", what the engine itself says of weights and pages.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.measure.benchmarks.instruments.process_memory import MemoryAccount
from app.measure.benchmarks.subjects.random_model import fill_session
from quest_core.config import EngineConfig, QuestConfig, SamplingConfig
from quest_core.engine import Cancellation, Engine

CHUNK_TOKENS = 512
_PR_SET_THP_DISABLE = 41
# Of glibc: up to how many bytes it allocates from the heap, where it keeps what is freed; how much it keeps at its end.
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1
_LARGEST_FROM_HEAP, _KEPT_AT_END = 1 << 25, 1 << 27


def main() -> None:
    """Measure what stdin asks for."""
    # Whether the system has a large page when one is asked for is a matter of chance, and they are large.
    library = ctypes.CDLL(None)
    library.prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)
    # So it is whether the allocator keeps a prefill's buffers: it would change its mind with what was freed before. An
    # estimate is of the most, so it keeps them.
    if hasattr(library, "mallopt"):
        library.mallopt(_M_MMAP_THRESHOLD, _LARGEST_FROM_HEAP)
        library.mallopt(_M_TRIM_THRESHOLD, _KEPT_AT_END)
    first, *others = json.load(sys.stdin)["models"]
    measure(first)
    for asked in others:
        print(json.dumps(measure(asked)), flush=True)


def measure(asked: dict[str, Any]) -> dict[str, int]:
    """Load a model, read a full window, and say what that took."""
    config = EngineConfig(
        device="cpu", context_tokens=asked["context_tokens"], cache_dir=Path(asked["cache_dir"]), offline=True
    )
    # What the model before has had would go meanwhile, and count against this one.
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    loading, filling, reading = MemoryAccount(), MemoryAccount(), MemoryAccount()
    with loading.work():
        engine = Engine.load(asked["model"], config)
    vocab_size, held = engine.model_config.vocab_size, []
    # What a prefill would have left there, in moments.
    filled_tokens = engine.context_tokens - CHUNK_TOKENS
    chunk = [token % vocab_size for token in range(CHUNK_TOKENS - 16)]

    def fill(cancellation: Cancellation) -> Iterator[None]:
        held.append(engine.new_session())
        fill_session(held[0], filled_tokens, vocab_size)
        yield

    def read(cancellation: Cancellation) -> Iterator[object]:
        yield from held[0].prefill([0] * filled_tokens + chunk, cancellation)
        yield from held[0].decode(QuestConfig(token_budget=256), SamplingConfig(max_new_tokens=8), cancellation)

    with filling.work():
        list(engine.submit(fill))
    with reading.work():
        list(engine.submit(read))
    memory = engine.memory()
    used_pages = memory["pool_pages"] - memory["free_pages"]
    engine.close()
    return {
        # Of loading what is held afterwards: at its peak the file that is read counts as well.
        "resident": loading.held_bytes + filling.held_bytes + reading.peak_bytes,
        "accounted": memory["weight_bytes"] + used_pages * memory["page_bytes"],
    }


if __name__ == "__main__":
    main()
