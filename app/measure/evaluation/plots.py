"""Pictures of an evaluation's rows, as SVG.

Knows the columns of the rows, not how they were measured.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.measure.svg_files import save_figure

# What each kind of evaluation shows against the budget, and what that is compared with.
CURVES = {
    "perplexity": ("ratio", None, "perplexity over dense's"),
    "recall": ("mass", "oracle_mass", "attention mass that is read"),
}
ANSWER_CURVE = ("accuracy", "dense_accuracy", "accuracy")


def draw_result(result: dict[str, Any], folder: Path) -> Path:
    """Draw a result's rows against the token budget, one curve for each task, selection and context.

    Returns:
        The file, `<folder>/<evaluation>.svg`.

    Raises:
        UserFacingError: if it cannot be written.
    """
    from matplotlib.figure import Figure

    value, rival, label = CURVES.get(result["evaluation"], ANSWER_CURVE)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, rows in _group(result["rows"], _name_curve).items():
        rows.sort(key=lambda row: row["token_budget"])
        budgets = [row["token_budget"] for row in rows]
        (line,) = axes.plot(budgets, [row[value] for row in rows], marker="o", label=name)
        if rival:
            axes.plot(budgets, [row[rival] for row in rows], linestyle=":", color=line.get_color())
    budgets = sorted({row["token_budget"] for row in result["rows"]})
    axes.set_xscale("log", base=2)
    axes.set_xticks(budgets, [str(budget) for budget in budgets])
    axes.set_xlabel("token budget")
    axes.set_ylabel(label + (f" (dotted: {rival.replace('_', ' ')})" if rival else ""))
    axes.set_title(f"{result['evaluation']}, {Path(str(result['model'])).name}")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return save_figure(figure, folder / f"{result['evaluation']}.svg")


def _name_curve(row: dict[str, Any]) -> str:
    parts = [row.get("task"), row["selection"], f"pages of {row['page_size']}", f"{row['context_tokens']} tokens"]
    return ", ".join(part for part in parts if part)


def _group(rows: list[dict[str, Any]], key: Callable[[dict[str, Any]], str]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups
