"""Drawing to SVG files: needs matplotlib, which only `--plot` does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from app.errors import UserFacingError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def require_matplotlib() -> None:
    """Raises UserFacingError if nothing can be drawn here."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UserFacingError("--plot needs matplotlib: pip install matplotlib, or leave --plot out.") from None


def save_figure(figure: Figure, path: Path) -> Path:
    """Write `figure` to `path`, making its folder; returns the path.

    Raises:
        UserFacingError: if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except OSError as error:
        raise UserFacingError(f"{path} cannot be written: {error.strerror}.") from error
    return path
