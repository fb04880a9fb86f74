"""The flags that several evaluations take, each declared once. An evaluation names those that mean something to it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from app.flags import CONTEXT_TOKENS, DATA_DIR, DENSE_LAYERS, LAYOUT_FLAGS, MODEL_FLAGS, SELECTION
from app.measure.number_flags import at_least, join_numbers, number_list
from app.measure.policies import POLICIES
from quest_core.config import SELECTIONS, QuestConfig

# Evaluations compare how the product chooses pages with what other papers do.
EVALUATED_SELECTION = replace(
    SELECTION,
    choices=(*SELECTIONS, *POLICIES),
    help="how pages are chosen: mean (ours, default) or quest (as the paper); or by a rival: streaming, oracle (slow), "
    "or evicting for good, as their papers do, raas (pages), h2o and tova (tokens; slow)",
)
ENGINE_FLAGS = (
    *MODEL_FLAGS,
    DENSE_LAYERS,
    *(EVALUATED_SELECTION if flag is SELECTION else flag for flag in LAYOUT_FLAGS),
    DATA_DIR,
)
# Of evaluations that open a window for each length of their own.
LENGTHS_ENGINE_FLAGS = tuple(flag for flag in ENGINE_FLAGS if flag is not CONTEXT_TOKENS)
QUICK_LENGTHS, LENGTHS = (1024,), (1024, 4096)


def add_quick(parser: argparse.ArgumentParser, what: str) -> None:
    """--quick; `what` is done instead."""
    parser.add_argument("--quick", action="store_true", help=f"{what}: minutes on a CPU")


def add_text(parser: argparse.ArgumentParser, usual: str = "the sample book") -> None:
    """--text, what is read; `usual` is the default in words."""
    parser.add_argument("--text", type=Path, metavar="FILE", help=f"what to read (default: {usual})")


def add_budgets(parser: argparse.ArgumentParser, usual: Sequence[int]) -> None:
    """--budgets."""
    parser.add_argument(
        "--budgets",
        type=number_list,
        default=usual,
        metavar="N,N",
        help=f"token budgets (default: {join_numbers(usual)})",
    )


def add_always_read(parser: argparse.ArgumentParser) -> None:
    """--sink-pages and --recent-pages."""
    for name, what, note in (("sink", "first", ""), ("recent", "last full", "; paper: 0")):
        parser.add_argument(
            f"--{name}-pages",
            type=at_least(0),
            default=getattr(QuestConfig, f"{name}_pages"),
            metavar="N",
            help=f"{what} pages always read (default: %(default)s{note})",
        )


def add_lengths(parser: argparse.ArgumentParser) -> None:
    """--lengths."""
    parser.add_argument(
        "--lengths",
        type=number_list,
        metavar="N,N",
        help=f"tokens of prompt and answer (default: {join_numbers(LENGTHS)}; --quick: {join_numbers(QUICK_LENGTHS)})",
    )


def add_trials(parser: argparse.ArgumentParser, usual: int, quick: int, least: int = 1) -> None:
    """--trials."""
    parser.add_argument(
        "--trials",
        type=at_least(least),
        metavar="N",
        help=f"questions of each task (default: {usual}; --quick: {quick})",
    )


def add_seed(parser: argparse.ArgumentParser) -> None:
    """--seed."""
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of what is hidden and where (default: %(default)s)"
    )


def add_tasks(parser: argparse.ArgumentParser, of_what: str) -> None:
    """--tasks, parsed as a list; none for all."""
    parser.add_argument(
        "--tasks",
        type=lambda text: [name for name in text.split(",") if name],
        default=[],
        metavar="NAME,NAME",
        help=f"{of_what} (default: all)",
    )
