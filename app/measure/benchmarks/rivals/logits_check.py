"""Whether ours gives Transformers' logits, within limits that Transformers' own rounding sets.

The reference is Transformers in float32. How far rounded logits are from it is chance from one prompt to the next:
between 0.004 and 0.06 of the embedded model's in bfloat16, by either implementation, and more after a long context. So
ours is compared with Transformers in the precision of ours, over many logits: after short stretches of the text, and
after each of the last tokens of a context. Over all of them ours may be little further from the reference than
Transformers is. Knows nothing of what is timed afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from app.errors import UserFacingError
from app.measure.benchmarks.rivals.transformers_rival import load_transformers, run_prefill
from quest_core.engine import Cancellation, Engine
from quest_core.session import Session

STRETCHES, STRETCH_TOKENS = 32, 64
# Of a context, whose logits are compared.
LAST_TOKENS = 16
# Two roundings of the same sums are as far from the exact ones only in the mean: ours may be so many times as far.
MORE_THAN_TRANSFORMERS = 1.5
# In float32 there is no finer reference; what remains is the order of sums.
FLOAT32_ERROR = 1e-3


@dataclass(frozen=True)
class RoundingCheck:
    """Relative errors of logits against Transformers in float32, over several logits.

    Args:
        ours: root mean square.
        transformers: of Transformers in the precision of ours, root mean square.
        largest: of Transformers' errors.
        ours_same_token: how often our likeliest token is the reference's, from 0 to 1.
        transformers_same_token: the same of Transformers.
    """

    ours: float
    transformers: float
    largest: float
    ours_same_token: float
    transformers_same_token: float

    @classmethod
    def of(cls, ours: torch.Tensor, transformers: torch.Tensor, reference: torch.Tensor) -> RoundingCheck:
        """Of logits after the same tokens, float32 [logits, vocab_size] each."""
        errors, their_errors = relative_errors(ours, reference), relative_errors(transformers, reference)
        return cls(
            float(errors.square().mean().sqrt()),
            float(their_errors.square().mean().sqrt()),
            float(their_errors.max()),
            _same_token(ours, reference),
            _same_token(transformers, reference),
        )

    @property
    def passes(self) -> bool:
        """Whether ours is about as close as Transformers; or so close that only the order of sums differs."""
        # Written so that NaN does not pass.
        return self.ours <= max(FLOAT32_ERROR, MORE_THAN_TRANSFORMERS * self.transformers)

    @property
    def limit(self) -> float:
        """How far ours may be from the reference after one prompt, where no other rounding is there to compare with."""
        return max(2 * self.largest, FLOAT32_ERROR)

    def to_json(self, context_tokens: int, logits: int) -> dict[str, Any]:
        """A row for the `checks` of a result: over so many logits, after so many tokens."""
        return {
            "context_tokens": context_tokens,
            "logits": logits,
            "ours_relative_error": self.ours,
            "transformers_relative_error": self.transformers,
            "transformers_largest_error": self.largest,
            "ours_same_token": self.ours_same_token,
            "transformers_same_token": self.transformers_same_token,
        }

    def require(self, what: str, dtype: torch.dtype) -> None:
        """Refuse what is further off.

        Args:
            what: over which logits.
            dtype: of Transformers' rounding.

        Raises:
            UserFacingError: if ours does not pass.
        """
        if not self.passes:
            raise UserFacingError(
                f"Over {what} the logits are {self.ours:.3g} (relative) from those of Transformers in float32, and "
                f"Transformers in {str(dtype).removeprefix('torch.')} is {self.transformers:.3g} from them. "
                "Nothing was timed."
            )


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
    reference = _transformers_logits(engine, torch.float32, stretches)
    theirs = reference if dtype == torch.float32 else _transformers_logits(engine, dtype, stretches)
    check = RoundingCheck.of(_our_logits(engine, stretches), theirs, reference)
    check.require(f"{STRETCHES} stretches of {STRETCH_TOKENS} tokens", dtype)
    return check


def check_last_logits(
    ours: torch.Tensor, theirs: torch.Tensor, reference: torch.Tensor, context: int, dtype: torch.dtype
) -> dict[str, Any]:
    """Compare the logits after each of the last tokens of a context; returns a row for `checks`.

    Args:
        ours, theirs, reference: float32 [last tokens, vocab_size]; the latter two Transformers' in `dtype` and float32.
        context: tokens, all of which are timed next.
        dtype: of ours.

    Raises:
        UserFacingError: if ours is further from float32 than Transformers in the precision of ours.
    """
    check = RoundingCheck.of(ours, theirs, reference)
    check.require(f"the last {len(ours)} of {context} tokens", dtype)
    return check.to_json(context, len(ours))


def our_last_logits(session: Session, token_ids: list[int], count: int) -> torch.Tensor:
    """Ours after each of the last tokens, float32 [count, vocab_size]; the session holds all before and afterwards."""
    logits = []
    for length in range(len(token_ids) - count + 1, len(token_ids) + 1):
        # With as much room as before, or the positions would be stretched anew.
        for _ in session.prefill(token_ids[:length], Cancellation(), session.max_tokens - length):
            pass
        logits.append(session.logits)
    return torch.stack(logits)


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


def relative_errors(logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Norm of each difference over the norm of what was expected, both [logits, vocab_size]; float32 [logits]."""
    return ((logits - reference).norm(dim=1) / reference.norm(dim=1)).cpu()


def _same_token(logits: torch.Tensor, reference: torch.Tensor) -> float:
    return float((logits.argmax(dim=1) == reference.argmax(dim=1)).float().mean())


def _our_logits(engine: Engine, stretches: list[list[int]]) -> torch.Tensor:
    session = engine.new_session()
    logits = []
    for stretch in stretches:
        for _ in session.prefill(stretch, Cancellation()):
            pass
        logits.append(session.logits)
    session.close()
    return torch.stack(logits)


def _transformers_logits(engine: Engine, dtype: torch.dtype, stretches: list[list[int]]) -> torch.Tensor:
    # Stretches are short: they are read as the model was made, whatever longer sequences need.
    as_made = engine.model_config.with_context(STRETCH_TOKENS)
    model = load_transformers(engine.model_folder, as_made, engine.device, dtype)
    return torch.stack([run_prefill(model, stretch)[0].logits[0, -1].float() for stretch in stretches])
