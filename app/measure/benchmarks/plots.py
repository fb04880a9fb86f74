"""Pictures of a benchmark's rows against the context length, as SVG.

Knows the columns of the rows, not how they were measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from app.measure.svg_files import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABELS = {
    "kernels": "microseconds a layer",
    "decode": "milliseconds a token",
    "prefill": "tokens a second",
    "trace": "milliseconds a token",
    "cpu": "tokens a second",
}
BOUND_LABEL = "what the bytes read allow"


class Point(NamedTuple):
    """A place on a curve of a panel; `bound` is what the memory would allow there, where that is known."""

    panel: str
    curve: str
    context_tokens: int
    value: float
    bound: float | None = None


def draw_result(result: dict[str, Any], folder: Path) -> Path:
    """Draw a result's rows, a panel for each model or attention shape.

    Returns:
        The file, `<folder>/<benchmark>.svg`.

    Raises:
        UserFacingError: if it cannot be written.
    """
    from matplotlib.figure import Figure

    benchmark = result["benchmark"]
    panels: dict[str, dict[str, list[Point]]] = {}
    for point in _points(benchmark, result):
        panels.setdefault(point.panel, {}).setdefault(point.curve, []).append(point)
    figure = Figure(figsize=(6.5 * len(panels), 5.5), layout="constrained")
    for axes, (panel, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        _draw_panel(axes, curves)
        axes.set_ylabel(LABELS[benchmark])
        axes.set_title(f"{benchmark}, {panel}")
    return save_figure(figure, folder / f"{benchmark}.svg")


def _draw_panel(axes: Axes, curves: dict[str, list[Point]]) -> None:
    """Each curve with its bound in the same colour, and below them what they are."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    bounded = False
    for name, points in curves.items():
        points.sort(key=lambda point: point.context_tokens)
        contexts = [point.context_tokens for point in points]
        (line,) = axes.plot(contexts, [point.value for point in points], marker="o", label=name)
        if all(point.bound is not None for point in points):
            axes.plot(contexts, [point.bound for point in points], linestyle=":", color=line.get_color())
            bounded = True
    if bounded:
        axes.plot([], [], linestyle=":", color="gray", label=BOUND_LABEL)
    contexts = sorted({point.context_tokens for points in curves.values() for point in points})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(contexts, [f"{context:,}" for context in contexts])
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("context in tokens")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, frameon=False)


def _points(benchmark: str, result: dict[str, Any]) -> Iterator[Point]:
    for row in result["rows"]:
        context = row["context_tokens"]
        if benchmark == "kernels":
            panel = f"{row['q_heads']}/{row['kv_heads']} heads of {row['head_dim']}"
            if row is _first_of_case(result["rows"], row):
                yield from (Point(panel, f"dense, {name}", context, value) for name, value in row["dense_us"].items())
            name = f"Quest, budget {row['token_budget']}"
            yield Point(panel, name, context, row["quest_us"]["total"], row["byte_bound_us"])
            continue
        panel = row.get("shape") or Path(str(result["model"])).name
        if benchmark == "prefill":
            yield Point(panel, row["engine"], context, row["tokens_per_s"])
        elif benchmark == "cpu":
            # All of ours share one prefill.
            if row["attention"] not in ("quest", "auto", "exact"):
                curve = f"{row['engine']}, {row['dtype']}"
                yield Point(f"prefill, {panel}", curve, context, row["prefill_tokens_per_s"])
            curve = f"{_name_decode(row)}, {row['dtype']}"
            yield Point(f"decode, {panel}", curve, context, row["decode_tokens_per_s"])
        elif benchmark == "trace":
            yield Point(panel, f"budget {row['token_budget']}, traced", context, row["ms_per_token"])
            yield Point(panel, f"budget {row['token_budget']}, not traced", context, row["ms_per_token_without_trace"])
        else:
            yield Point(panel, _name_decode(row), context, row["ms_per_token"], row.get("byte_bound_ms"))


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
