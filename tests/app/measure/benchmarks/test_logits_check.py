"""The check against Transformers: wrong logits are never timed, rounded ones are."""

from __future__ import annotations

import pytest
import torch

from app.errors import UserFacingError
from app.measure.benchmarks import logits_check
from app.measure.benchmarks.logits_check import FLOAT32_ERROR, RoundingCheck, check_logits, check_rounding
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


def test_ours_may_round_as_much_as_transformers_does():
    theirs = torch.rand(32, generator=torch.Generator().manual_seed(0)) * 0.04
    assert RoundingCheck.of(theirs.flip(0), theirs).passes
    assert not RoundingCheck.of(theirs + 0.02, theirs).passes
    assert not RoundingCheck.of(theirs * float("nan"), theirs).passes
    assert RoundingCheck.of(theirs, theirs).limit == pytest.approx(2 * float(theirs.max()))


def test_in_float32_only_the_order_of_sums_may_differ():
    exact = torch.zeros(32)
    assert RoundingCheck.of(exact + 1e-6, exact).passes
    assert not RoundingCheck.of(exact + 2 * FLOAT32_ERROR, exact).passes
    assert RoundingCheck.of(exact + 1e-6, exact).limit == FLOAT32_ERROR


def test_rounding_is_measured_against_float32(engine):
    check = run_check(engine)
    assert check.passes
    assert 0 < check.ours < 0.2 and 0 < check.transformers <= check.largest < 0.4


def test_logits_further_off_than_rounding_are_refused(engine, monkeypatch):
    ours = logits_check._our_logits
    # By a tenth, which a bfloat16 of 8 bits does not explain.
    monkeypatch.setattr(logits_check, "_our_logits", lambda *given: (logits * 1.1 for logits in ours(*given)))
    with pytest.raises(UserFacingError, match="in float32.*bfloat16.*Nothing was timed"):
        run_check(engine)
