"""What a session yields while it works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from quest_core.decode.read_trace import StepReads

FinishReason = Literal["stop", "length", "context"]


@dataclass(frozen=True)
class PrefillProgress:
    """`done_tokens` of `total_tokens` are in the cache; `reused_tokens` of them were not computed for this prefill, and
    `restored_tokens` of these came from the disk, where `restored_bytes` were read.

    Positions are stretched by `stretch_factor`, 1 as the model was made; `stretch_changed` if what was cached had to go
    because it was stretched otherwise.
    """

    reused_tokens: int
    done_tokens: int
    total_tokens: int
    elapsed_s: float
    stretch_factor: float = 1.0
    stretch_changed: bool = False
    restored_tokens: int = 0
    restored_bytes: int = 0


@dataclass(frozen=True)
class DecodeStep:
    """One token drawn.

    Args:
        step: 0 for the token drawn from the prefill's logits.
        token_id: the token; it enters the cache in the next step.
        step_s: seconds from the start of the step to the token id on the host; of a step that was launched ahead, since
            the token id before; of one of several tokens of a round of speculative decoding, its part of the round.
        context_tokens: tokens attended in this step.
        kv_bytes_read: bytes of the cache this step read, summaries included; 0 in step 0, and where reads are not
            traced.
        kv_bytes_dense: bytes a dense step would have read.
        reads: which pages; None in step 0, with dense attention, and where they are not traced.
        finish_reason: None while it goes on; "stop" with a stop token, "length" at max_new_tokens, "context" at the
            end of the window.
        drafted: with "exact" attention, tokens drafted in the round of speculative decoding that this token begins; 0
            for a round's other tokens.
        accepted: how many of them were what dense attention gives, so that they count.
    """

    step: int
    token_id: int
    step_s: float
    context_tokens: int
    kv_bytes_read: int
    kv_bytes_dense: int
    reads: StepReads | None
    finish_reason: FinishReason | None
    drafted: int = 0
    accepted: int = 0


@dataclass(frozen=True)
class ScoredToken:
    """A token fed from outside.

    Args:
        log_probability: natural logarithm of the probability that the model gave it.
        kv_bytes_read: bytes of the cache that feeding it read, summaries included.
        reads: which pages; None with dense attention.
        is_likeliest: whether no other token was more probable.
    """

    log_probability: float
    kv_bytes_read: int
    reads: StepReads | None = None
    is_likeliest: bool = False
