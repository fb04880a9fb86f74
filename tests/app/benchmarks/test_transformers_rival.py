"""Transformers as the reference: wrong logits are never timed."""

from __future__ import annotations

import pytest
import torch

from app.benchmarks.transformers_rival import check_logits
from app.errors import UserFacingError


def test_wrong_logits_are_never_timed():
    logits = torch.randn(50)
    assert check_logits(logits, logits, 10, torch.float32)["logits_relative_error"] == 0.0
    with pytest.raises(UserFacingError, match="Nothing was timed"):
        check_logits(logits * 1.01, logits, 10, torch.float32)
    with pytest.raises(UserFacingError, match="Nothing was timed"):
        check_logits(logits * float("nan"), logits, 10, torch.float32)
