"""What the live panel is told beside its conversation."""

from __future__ import annotations

import re
from pathlib import Path

from app.chat.presets import MISSED_OVER_ESTIMATE
from ui.live_panel import LivePanel

SCRIPTS = Path(__file__).resolve().parents[2] / "assets" / "js"


def test_it_tells_the_measured_range_of_missed_attention():
    least, most = MISSED_OVER_ESTIMATE
    assert f'missed-factor="{least:.2f} to {most:.2f}"' in LivePanel(4).markup("")
    for name in ("reading/engine-view.js", "reading/reading-panel.js"):
        script = (SCRIPTS / name).read_text(encoding="utf-8")
        assert "missed-factor" in script and not re.search(r"\d\.\d+ to \d\.\d+ times", script)
