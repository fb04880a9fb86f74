"""The CPU kernels' own exponential against numpy's in double precision."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.cpu_tools.exponentials import exponentiate


@pytest.mark.parametrize("spread", [1e-3, 1.0, 20.0])
def test_exponentials_are_as_exact_as_float32(spread):
    logits = (np.random.default_rng(0).standard_normal(5000) * spread).astype(np.float32)
    highest, weights = logits.max(), np.empty_like(logits)
    total = exponentiate(logits, highest, weights)
    seen = logits - highest > -87
    expected = np.exp((logits - highest).astype(np.float64))
    assert np.abs(weights / expected - 1)[seen].max() < 3e-7
    assert total == pytest.approx(expected.sum(), rel=1e-6)


def test_what_is_far_below_weighs_next_to_nothing():
    logits = np.array([-np.inf, 0.0, -1e4, -87.0], dtype=np.float32)
    assert exponentiate(logits, np.float32(0.0), logits) == 1.0
    assert logits[1] == 1.0
    assert (logits[[0, 2, 3]] < 1e-37).all() and (logits >= 0).all()
