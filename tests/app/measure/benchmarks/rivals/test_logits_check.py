"""The check against Transformers: wrong logits are never timed, rounded ones are."""

from __future__ import annotations

import pytest
import torch

from app.errors import UserFacingError
from app.measure.benchmarks.rivals import logits_check
from app.measure.benchmarks.rivals.logits_check import (
    FLOAT32_ERROR,
    RoundingCheck,
    check_last_logits,
    check_logits,
    check_rounding,
)
from quest_core.config import EngineConfig
from quest_core.engine import Engine


@pytest.fixture(scope="module")
def engine(tiny_model_folder, tmp_path_factory):
    """In bfloat16, whatever this CPU multiplies fastest."""
    cache_dir = tmp_path_factory.mktemp("cache")
    config = EngineConfig(device="cpu", dtype="bfloat16", context_tokens=128, cache_dir=cache_dir)
    engine = Engine.load(str(tiny_model_folder), config)
    yield engine
    engine.close()


def run_check(engine):
    tokens = torch.randint(3, 400, (600,), generator=torch.Generator().manual_seed(0)).tolist()
    return next(engine.submit(lambda cancellation: iter([check_rounding(engine, tokens)])))


def test_wrong_logits_are_never_timed():
    logits = torch.randn(50)
    assert check_logits(logits, logits, 10, 1e-3)["logits_relative_error"] == 0.0
    with pytest.raises(UserFacingError, match="Nothing was timed"):
        check_logits(logits * 1.01, logits, 10, 1e-3)
    with pytest.raises(UserFacingError, match="Nothing was timed"):
        check_logits(logits * float("nan"), logits, 10, 1e-3)


def logits_off_by(*errors: float) -> torch.Tensor:
    """Logits [errors, 2] that are so far from (1, 0), relative to it."""
    return torch.tensor([[1.0, error] for error in errors])


EXACT = logits_off_by(0.0, 0.0, 0.0)


def test_ours_may_round_half_as_much_again_as_transformers_does():
    theirs = logits_off_by(0.01, 0.02, 0.06)
    root_mean_square = ((0.01**2 + 0.02**2 + 0.06**2) / 3) ** 0.5
    check = RoundingCheck.of(theirs.flip(0), theirs, EXACT)
    assert check.passes
    assert (check.ours, check.transformers) == (pytest.approx(root_mean_square), pytest.approx(root_mean_square))
    assert check.limit == pytest.approx(0.12)
    for factor, passes in ((1.49, True), (1.51, False), (float("nan"), False)):
        ours = logits_off_by(*(factor * error for error in (0.01, 0.02, 0.06)))
        assert RoundingCheck.of(ours, theirs, EXACT).passes is passes


def test_a_single_prompt_may_be_further_off_by_chance():
    """As 5.4 % after one context were, where Transformers' own rounding was as far off elsewhere."""
    ours, theirs = logits_off_by(0.054, 0.01, 0.02), logits_off_by(0.02, 0.05, 0.01)
    assert RoundingCheck.of(ours, theirs, EXACT).passes
    assert not RoundingCheck.of(ours[:1], theirs[:1], EXACT[:1]).passes


def test_in_float32_only_the_order_of_sums_may_differ():
    close, off = logits_off_by(*[1e-6] * 3), logits_off_by(*[2 * FLOAT32_ERROR] * 3)
    assert RoundingCheck.of(close, EXACT, EXACT).passes
    assert not RoundingCheck.of(off, EXACT, EXACT).passes
    assert RoundingCheck.of(close, EXACT, EXACT).limit == FLOAT32_ERROR


def test_likeliest_tokens_are_counted():
    check = RoundingCheck.of(logits_off_by(0.5, 2.0, 0.0), logits_off_by(2.0, 2.0, 0.0), EXACT)
    assert (check.ours_same_token, check.transformers_same_token) == (pytest.approx(2 / 3), pytest.approx(1 / 3))


def test_a_context_is_judged_by_its_last_logits():
    theirs, reference = logits_off_by(0.02, 0.03, 0.04), EXACT
    row = check_last_logits(theirs.flip(0), theirs, reference, 8192, torch.bfloat16)
    assert (row["context_tokens"], row["logits"], row["ours_same_token"]) == (8192, 3, 1.0)
    with pytest.raises(UserFacingError, match="Over the last 3 of 8192 tokens .* bfloat16 .* Nothing was timed"):
        check_last_logits(logits_off_by(0.2, 0.2, 0.2), theirs, reference, 8192, torch.bfloat16)


def test_rounding_is_measured_against_float32(engine):
    check = run_check(engine)
    assert check.passes
    assert 0 < check.ours < 0.2 and 0 < check.transformers <= check.largest < 0.4


def test_logits_further_off_than_rounding_are_refused(engine, monkeypatch):
    ours = logits_check._our_logits
    # By a tenth, which a bfloat16 of 8 bits does not explain.
    monkeypatch.setattr(logits_check, "_our_logits", lambda *given: ours(*given) * 1.1)
    with pytest.raises(UserFacingError, match="in float32.*bfloat16.*Nothing was timed"):
        run_check(engine)
