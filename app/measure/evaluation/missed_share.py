"""How far the live panel's estimate of missed attention falls short, from the rows that `eval recall` has saved.

Plain data, without torch: the figure that the page tells is held to the committed rows by a test.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def range_of_truth_over_estimate(
    rows: Iterable[Mapping[str, Any]], selection: str, page_size: int
) -> tuple[float, float]:
    """The least and the greatest ratio of the true missed share to its estimate, over texts and budgets.

    Args:
        rows: of `eval recall`.
        selection, page_size: whose rows count.

    Raises:
        ValueError: if there is no such row.
    """
    ratios = [
        row["missed"] / row["estimated_missed"]
        for row in rows
        if (row["selection"], row["page_size"]) == (selection, page_size)
    ]
    if not ratios:
        raise ValueError(f"no rows of {selection} with pages of {page_size}")
    return min(ratios), max(ratios)
