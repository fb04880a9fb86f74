"""Pictures of a benchmark's rows against the context length, as SVG.

Knows the columns of the rows, not how they were measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.figures import save_figure

LABELS = {
    "kernels": "microseconds a layer",
    "decode": "milliseconds a token",
    "prefill": "tokens a second",
    "trace": "milliseconds a token",
    "cpu": "tokens a second",
}
# (panel, curve, context_tokens, value)
Point = tuple[str, str, int, float]


def draw_result(result: dict[str, Any], folder: Path) -> Path:
    """Draw a result's rows, a panel for each model or attention shape.

    Returns:
        The file, `<folder>/<benchmark>.svg`.

    Raises:
        UserFacingError: if it cannot be written.
    """
    from matplotlib.figure import Figure

    benchmark = result["benchmark"]
    panels: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for panel, curve, context, value in _points(benchmark, result):
        panels.setdefault(panel, {}).setdefault(curve, []).append((context, value))
    figure = Figure(figsize=(6.5 * len(panels), 4.5), layout="constrained")
    for axes, (panel, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for name, points in curves.items():
            points.sort()
            line = ":" if "byte bound" in name else "-"
            axes.plot(*zip(*points, strict=True), marker="o", linestyle=line, label=name)
        contexts = sorted({context for points in curves.values() for context, _ in points})
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(contexts, [str(context) for context in contexts])
        axes.set_xlabel("context in tokens")
        axes.set_ylabel(LABELS[benchmark])
        axes.set_title(f"{benchmark}, {panel}")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    return save_figure(figure, folder / f"{benchmark}.svg")


def _points(benchmark: str, result: dict[str, Any]) -> Iterator[Point]:
    for row in result["rows"]:
        context = row["context_tokens"]
        if benchmark == "kernels":
            panel = f"{row['q_heads']}/{row['kv_heads']} heads of {row['head_dim']}"
            budget = row["token_budget"]
            if row is _first_of_case(result["rows"], row):
                yield from ((panel, f"dense, {name}", context, value) for name, value in row["dense_us"].items())
            yield panel, f"Quest, budget {budget}", context, row["quest_us"]["total"]
            yield panel, f"byte bound, budget {budget}", context, row["byte_bound_us"]
            continue
        panel = row.get("shape") or Path(str(result["model"])).name
        if benchmark == "prefill":
            yield panel, row["engine"], context, row["tokens_per_s"]
        elif benchmark == "cpu":
            # Dense and Quest share one prefill.
            if row["attention"] != "quest":
                yield f"prefill, {panel}", f"{row['engine']}, {row['dtype']}", context, row["prefill_tokens_per_s"]
            yield f"decode, {panel}", f"{_name_decode(row)}, {row['dtype']}", context, row["decode_tokens_per_s"]
        elif benchmark == "trace":
            yield panel, f"budget {row['token_budget']}, traced", context, row["ms_per_token"]
            yield panel, f"budget {row['token_budget']}, not traced", context, row["ms_per_token_without_trace"]
        else:
            yield panel, _name_decode(row), context, row["ms_per_token"]


def _first_of_case(rows: list[dict[str, Any]], row: dict[str, Any]) -> dict[str, Any]:
    """The first of the rows that share one measurement of dense attention."""
    case = ("q_heads", "kv_heads", "head_dim", "context_tokens", "page_size")
    return next(other for other in rows if all(other[name] == row[name] for name in case))


def _name_decode(row: dict[str, Any]) -> str:
    budget = row["token_budget"]
    parts = [row["engine"], row["attention"], budget and f"budget {budget}"]
    if row.get("weight_bits", 16) != 16:
        parts.append(f"{row['weight_bits']}-bit weights")
    return ", ".join(part for part in parts if part)
