"""Show the rows of a measurement as a table, and keep them as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from app.errors import UserFacingError


def format_table(rows: list[dict[str, Any]]) -> str:
    """The rows under the names of all their columns, numbers right-aligned; a nested column is named `outer.inner`."""
    rows = [_flatten(row) for row in rows]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [columns] + [[_format_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def _flatten(row: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        flat |= {f"{name}.{inner}": each for inner, each in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _format_cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value)


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Write `result`.

    Raises:
        UserFacingError: if the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=2) + "\n")
    except OSError as error:
        raise UserFacingError(f"{path} cannot be written: {error.strerror}.") from error
