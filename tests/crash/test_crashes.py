"""Fifty servers killed at random moments: nothing that was finished is lost, nothing damaged is believed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNS = 50
ALL_RUNS_REPORT = ROOT / "assets" / "reliability" / "crashes-1000.json"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks its servers")
def test_nothing_finished_is_lost(tmp_path):
    report_path = tmp_path / "report.json"
    command = [sys.executable, str(Path(__file__).with_name("crash_runs.py")), "--runs", str(RUNS), "--seed", "2026"]
    result = subprocess.run(
        [*command, "--json", str(report_path)], cwd=ROOT, capture_output=True, text=True, timeout=1800
    )
    assert report_path.exists(), result.stderr
    report = json.loads(report_path.read_text())
    assert report["faults"] == []
    assert report["runs"] == RUNS
    # Of a run in which nothing happened nothing could be lost.
    assert report["answers"] > RUNS and report["answers_checked_after_restart"] > RUNS
    assert report["snapshots_seen"] > RUNS and report["snapshots_damaged"] > 0
    assert len(report["killed_while"]) > 3


def test_the_committed_report_is_of_a_thousand_runs():
    report = json.loads(ALL_RUNS_REPORT.read_text())
    assert report["runs"] == 1000
    assert report["faults"] == []
