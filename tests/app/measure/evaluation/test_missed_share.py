"""What the app and docs/evaluation.md say about the estimate of missed attention is what was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from app.chat.presets import MISSED_OVER_ESTIMATE
from app.measure.evaluation.missed_share import range_of_truth_over_estimate
from quest_core.config import EngineConfig

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def measured() -> tuple[float, float]:
    rows = json.loads((ROOT / "assets" / "evaluation" / "recall-6k.json").read_text(encoding="utf-8"))["rows"]
    return range_of_truth_over_estimate(rows, EngineConfig.selection, EngineConfig.page_size)


def test_the_constant_is_what_was_measured(measured):
    assert tuple(round(bound, 2) for bound in measured) == MISSED_OVER_ESTIMATE


def test_the_evaluation_tells_that_range(measured):
    least, most = measured
    text = " ".join((ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8").split())
    ranges = re.findall(r"the true mass was ([\d.]+) to ([\d.]+) times the estimate", text)
    assert ranges == [(f"{least:.2f}", f"{most:.2f}")]


def test_rows_of_other_selections_do_not_count():
    rows = [
        {"selection": "mean", "page_size": 4, "missed": 0.2, "estimated_missed": 0.1},
        {"selection": "mean", "page_size": 8, "missed": 0.9, "estimated_missed": 0.1},
        {"selection": "quest", "page_size": 4, "missed": 0.9, "estimated_missed": None},
    ]
    assert range_of_truth_over_estimate(rows, "mean", 4) == (2.0, 2.0)
    with pytest.raises(ValueError, match="oracle"):
        range_of_truth_over_estimate(rows, "oracle", 4)
