"""The `eval` subcommand: which evaluation to run, and where its rows go."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from app.results import format_table, number_list, write_json
from app.settings import AppSettings


def add_eval_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `eval` takes beside the shared flags; --context-tokens is the length evaluated."""
    parser.add_argument("evaluation", nargs="?", choices=["perplexity"], default="perplexity", help="what to measure")
    parser.add_argument("--text", type=Path, metavar="FILE", help="what to read (default: the sample book)")
    parser.add_argument(
        "--budgets",
        type=number_list,
        default=[256, 512, 1024],
        metavar="N,N",
        help="token budgets (default: 256,512,1024)",
    )
    parser.add_argument(
        "--scored-tokens", type=int, default=512, metavar="N", help="last tokens, fed one by one (default: 512)"
    )
    parser.add_argument(
        "--sink-pages", type=int, default=1, metavar="N", help="first pages always read (default: 1; the paper: 0)"
    )
    parser.add_argument(
        "--recent-pages", type=int, default=1, metavar="N", help="last full pages always read (default: 1; paper: 0)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write rows, machine, versions and commit")


def run_eval(settings: AppSettings, arguments: argparse.Namespace) -> int:
    """Run one evaluation, print its table, write its JSON; returns the exit code."""
    from app.evaluation.perplexity import measure_perplexity
    from quest_core.config import QuestConfig

    result = measure_perplexity(
        settings,
        settings_of_quest=[
            QuestConfig(token_budget=budget, sink_pages=arguments.sink_pages, recent_pages=arguments.recent_pages)
            for budget in arguments.budgets
        ],
        scored_tokens=arguments.scored_tokens,
        text=arguments.text,
        on_progress=lambda message: print(message, file=sys.stderr, flush=True),
    )
    print(format_table(result["rows"]))
    if arguments.json:
        write_json(arguments.json, result)
    return 0
