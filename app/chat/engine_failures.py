"""What to tell of an exception that the engine's work ended with."""

from __future__ import annotations

from app.errors import UserFacingError, explain


def explain_engine_failure(error: Exception, what_failed: str) -> UserFacingError:
    """A sentence for whatever the engine raises; of what nobody foresaw the traceback goes to the log.

    Args:
        error: as raised.
        what_failed: a noun, e.g. "The answer".
    """
    from quest_core.cache.paged_kv_cache import PoolExhausted
    from quest_core.decode.sampling import NotANumberError

    if isinstance(error, (PoolExhausted, MemoryError)):
        return UserFacingError(
            "The memory for KV pages is full. Close other conversations, or start Quest Chat with a smaller "
            "--context-tokens."
        )
    if isinstance(error, NotANumberError):
        return UserFacingError(str(error))
    if _is_out_of_memory(error):
        return UserFacingError(
            "There is not enough memory to work in. Close what else uses it, or start Quest Chat with a smaller "
            "--context-tokens."
        )
    return explain(error, what_failed)


def _is_out_of_memory(error: Exception) -> bool:
    """Whether torch could not get memory; on the CPU only its words tell."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
