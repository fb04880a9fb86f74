"""Whether ours gives Transformers' logits, within limits that Transformers' own rounding sets.

How far rounded logits are from exact ones is chance from one prompt to the next: between 0.004 and 0.06 of the embedded
model's in bfloat16, by either implementation. So many short stretches of the text are read: by ours, by Transformers in
the precision of ours, and by Transformers in float32, which is the reference. Over all of them ours may be no further
from the reference than Transformers is, beyond what chance explains. Knows nothing of what is timed afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from app.errors import UserFacingError
from app.measure.benchmarks.transformers_rival import load_transformers, run_prefill
from quest_core.engine import Cancellation, Engine

STRETCHES, STRETCH_TOKENS = 32, 64
# In float32 there is no finer reference; what remains is the order of sums.
FLOAT32_ERROR = 1e-3


@dataclass(frozen=True)
class RoundingCheck:
    """Relative errors of logits against Transformers in float32, over `STRETCHES` stretches of a text.

    Args:
        ours: root mean square.
        transformers: of Transformers in the precision of ours, root mean square.
        largest: of Transformers' errors.
        chance: two standard errors of the mean difference of the two errors' squares.
    """

    ours: float
    transformers: float
    largest: float
    chance: float

    @classmethod
    def of(cls, ours: torch.Tensor, transformers: torch.Tensor) -> RoundingCheck:
        """Of the errors over the same stretches, float32 [stretches]."""
        squares, their_squares = ours.square(), transformers.square()
        chance = 2 * float((squares - their_squares).std()) / len(ours) ** 0.5
        return cls(float(squares.mean().sqrt()), float(their_squares.mean().sqrt()), float(transformers.max()), chance)

    @property
    def passes(self) -> bool:
        """Whether ours is as close as Transformers, up to chance; or so close that only the order of sums differs."""
        # Written so that NaN does not pass.
        return self.ours <= FLOAT32_ERROR or self.ours**2 - self.transformers**2 <= self.chance

    @property
    def limit(self) -> float:
        """How far ours may be from Transformers in the same precision after one prompt, where both have rounded."""
        return max(2 * self.largest, FLOAT32_ERROR)

    def to_json(self) -> dict[str, Any]:
        """A row for the `checks` of a result."""
        return {
            "stretches": STRETCHES,
            "context_tokens": STRETCH_TOKENS,
            "ours_relative_error": self.ours,
            "transformers_relative_error": self.transformers,
            "transformers_largest_error": self.largest,
        }


def check_rounding(engine: Engine, token_ids: list[int]) -> RoundingCheck:
    """Compare ours with Transformers; call on the engine's thread, which alone uses the device.

    Args:
        engine: ours, with a window of `STRETCH_TOKENS` or more.
        token_ids: of a text, from which the stretches are taken evenly; no shorter than one of them.

    Raises:
        UserFacingError: if ours is further from float32 than Transformers in the precision of ours.
    """
    last_start = len(token_ids) - STRETCH_TOKENS
    starts = [index * last_start // (STRETCHES - 1) for index in range(STRETCHES)]
    stretches = [token_ids[start : start + STRETCH_TOKENS] for start in starts]
    # The coarser of the weights' and the cache's precision.
    dtype = max(engine.dtype, engine.kv_dtype, key=lambda each: torch.finfo(each).eps)
    reference = list(_transformers_logits(engine, torch.float32, stretches))
    ours = relative_errors(_our_logits(engine, stretches), reference)
    theirs = torch.zeros(STRETCHES)
    if dtype != torch.float32:
        theirs = relative_errors(_transformers_logits(engine, dtype, stretches), reference)
    check = RoundingCheck.of(ours, theirs)
    if not check.passes:
        raise UserFacingError(
            f"Over {STRETCHES} stretches of {STRETCH_TOKENS} tokens the logits are {check.ours:.3g} (relative) from "
            f"those of Transformers in float32, and Transformers in {str(dtype).removeprefix('torch.')} is "
            f"{check.transformers:.3g} from them. Nothing was timed."
        )
    return check


def check_logits(ours: torch.Tensor, theirs: torch.Tensor, context: int, limit: float) -> dict[str, Any]:
    """Compare the logits after `context` tokens, all of which are timed next; returns a row for `checks`.

    Args:
        ours, theirs: float32 [vocab_size].
        limit: of their relative difference.

    Raises:
        UserFacingError: if they differ by more.
    """
    error = float((ours - theirs).norm() / theirs.norm())
    if not error <= limit:  # NaN is no smaller
        raise UserFacingError(
            f"At {context} tokens the logits differ from Transformers' by {error:.3g} (relative), more than "
            f"{limit:.3g}. Nothing was timed."
        )
    return {"context_tokens": context, "logits_relative_error": error, "limit": limit}


def relative_errors(logits: Iterator[torch.Tensor], reference: list[torch.Tensor]) -> torch.Tensor:
    """Norm of each difference over the norm of what was expected; float32 [stretches]."""
    pairs = zip(logits, reference, strict=True)
    return torch.stack([(each - expected).norm() / expected.norm() for each, expected in pairs]).cpu()


def _our_logits(engine: Engine, stretches: list[list[int]]) -> Iterator[torch.Tensor]:
    session = engine.new_session()
    for stretch in stretches:
        for _ in session.prefill(stretch, Cancellation()):
            pass
        yield session.logits
    session.close()


def _transformers_logits(engine: Engine, dtype: torch.dtype, stretches: list[list[int]]) -> Iterator[torch.Tensor]:
    # Stretches are short: they are read as the model was made, whatever longer sequences need.
    as_made = engine.model_config.with_context(STRETCH_TOKENS)
    model = load_transformers(engine.model_folder, as_made, engine.device, dtype)
    for stretch in stretches:
        yield run_prefill(model, stretch)[0].logits[0, -1].float()
