"""The README's example runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_example_runs(embedded_model_cache, quest, tmp_path, monkeypatch, capsys):
    (example,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    (tmp_path / "models").symlink_to(embedded_model_cache)
    monkeypatch.setenv("QUEST_CHAT_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(ROOT)
    exec(compile(example, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0]
    assert re.match(r"page \d+, score \d+\.\d\d: 'Source 1:", next(line for line in lines if line.startswith("page ")))
