"""What is told about `--summary-levels 2` where it does nothing.

Sentences only; when pages are scored from coarse to fine belongs to the kernels (`kernels.select.coarse_to_fine`).
"""

from __future__ import annotations

from collections.abc import Sequence

from app.settings import AppSettings


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
    scored_tokens, most_tokens = _limits(settings.page_size)
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


def levels_scope_note(settings: AppSettings, device_type: str, context_tokens: int) -> str:
    """What `idle_levels_note` says, or, where the budget may change with every answer, when it will do something."""
    if settings.summary_levels == 1:
        return ""
    if idle := idle_levels_note(settings, device_type, (settings.token_budget,), context_tokens):
        return idle
    scored_tokens, most_tokens = _limits(settings.page_size)
    return (
        f"--summary-levels 2 takes part above {scored_tokens:,} tokens and with budgets up to {most_tokens:,}, and "
        "does nothing otherwise."
    )


def _limits(page_size: int) -> tuple[int, int]:
    """The longest sequence of which every page is scored, and the largest budget of which not; in tokens."""
    # Brings torch, which the page must not wait for.
    from kernels.select.coarse_to_fine import CANDIDATES_PER_PAGE, MOST_CANDIDATES, MOST_PAGES_SCORED

    return MOST_PAGES_SCORED * page_size, MOST_CANDIDATES // CANDIDATES_PER_PAGE * page_size
