"""The presets say what was measured."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from app.chat.presets import PRESETS, find_preset
from app.settings import AppSettings
from quest_core.config import EngineConfig, QuestConfig

RESULTS = Path(__file__).parents[3] / "assets" / "evaluation" / "perplexity-6k.json"


@pytest.mark.parametrize("preset", [preset for preset in PRESETS if preset.attention != "exact"])
def test_a_loss_is_the_geometric_mean_of_the_committed_measurement(preset):
    ratios = [
        row["ratio"]
        for row in json.loads(RESULTS.read_text())["rows"]
        if (row["selection"], row["dense_layers"], row["token_budget"])
        == (EngineConfig.selection, QuestConfig.dense_layers, preset.token_budget)
    ]
    assert len(ratios) == 3
    assert round(math.prod(ratios) ** (1 / 3), 3) == preset.measured_loss


def test_the_default_settings_are_the_balanced_preset(tmp_path):
    settings = AppSettings(data_dir=tmp_path)
    assert find_preset(settings.attention, settings.token_budget).name == "balanced"


def test_dense_is_exact_whatever_its_budget_and_other_budgets_are_no_preset():
    assert find_preset("exact", 4096).name == find_preset("dense", 4096).name == "exact"
    assert find_preset("auto", 512) is None
    # What always chooses is slower in short texts, and no preset.
    assert find_preset("quest", QuestConfig.token_budget) is None
