"""What is told about `--summary-levels 2` where it does nothing.

Sentences only; when pages are narrowed down by superpages is the kernels' business (`kernels.reference.superpages`).
"""

from __future__ import annotations

from collections.abc import Sequence

from app.settings import AppSettings


def most_narrowed_tokens(page_size: int) -> int:
    """The largest token budget at which two levels do something."""
    from kernels.reference.superpages import CANDIDATES_PER_PAGE, MOST_CANDIDATES

    return MOST_CANDIDATES // CANDIDATES_PER_PAGE * page_size


def idle_levels_note(settings: AppSettings, device_type: str, budgets: Sequence[int], context_tokens: int) -> str:
    """Why the second level of summaries does nothing; "" if it does something, or was not asked for.

    Args:
        settings: page size and levels asked for.
        device_type: "cuda" or "cpu".
        budgets: in tokens, of the answers to come.
        context_tokens: the longest sequence to come.
    """
    if settings.summary_levels == 1:
        return ""
    if device_type == "cpu":
        return "--summary-levels 2 does nothing on a CPU: its kernels score every page."
    from kernels.reference.superpages import MOST_PAGES_SCORED

    scored_tokens, most_tokens = MOST_PAGES_SCORED * settings.page_size, most_narrowed_tokens(settings.page_size)
    if context_tokens <= scored_tokens:
        return (
            f"--summary-levels 2 does nothing up to {context_tokens:,} tokens: of so few pages every one is scored. It "
            f"begins above {scored_tokens:,}."
        )
    if idle := [f"{budget:,}" for budget in budgets if budget > most_tokens]:
        return (
            f"--summary-levels 2 does nothing with a token budget of {', '.join(idle)}: with pages of "
            f"{settings.page_size} it takes part up to {most_tokens:,}."
        )
    return ""
