"""The page's own modules under node's test runner, which comes with Playwright."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
# Earlier ones take a .js file for CommonJS.
OLDEST_NODE = (22, 7)


def node() -> Path | str | None:
    """A node that runs modules as they stand, if there is one."""
    candidates: list[Path | str | None] = [shutil.which("node")]
    try:
        import playwright
    except ImportError:
        pass
    else:
        driver = Path(playwright.__file__).parent / "driver"
        candidates[:0] = [file for name in ("node", "node.exe") if (file := driver / name).is_file()]
    for candidate in filter(None, candidates):
        told = subprocess.run([candidate, "--version"], capture_output=True, text=True, check=True).stdout
        if tuple(int(part) for part in told.strip().removeprefix("v").split(".")[:2]) >= OLDEST_NODE:
            return candidate
    return None


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.test.mjs")), ids=lambda file: file.name)
def test_javascript(file):
    runner = node()
    if runner is None:
        pytest.skip("needs Playwright or node")
    tested = subprocess.run(
        [runner, "--test", "--test-reporter=spec", file], capture_output=True, encoding="utf-8", errors="replace"
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr
