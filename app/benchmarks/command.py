"""The `bench` subcommand: which benchmark to run, and where its rows go."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from app.results import format_table, number_list, write_json
from app.settings import AppSettings


def add_bench_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `bench` takes beside the shared flags."""
    parser.add_argument("benchmark", nargs="?", choices=["decode"], default="decode", help="what to measure")
    parser.add_argument(
        "--contexts",
        type=number_list,
        default=[512, 2048, 7680],
        metavar="N,N",
        help="context lengths in tokens (default: 512,2048,7680)",
    )
    parser.add_argument(
        "--budgets", type=number_list, metavar="N,N", help="token budgets of Quest (default: --token-budget)"
    )
    parser.add_argument("--steps", type=int, default=32, metavar="N", help="tokens decoded in each round (default: 32)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds of all rivals in turn (default: 3)")
    parser.add_argument("--text", type=Path, metavar="FILE", help="what to read (default: the sample book, repeated)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write rows, machine, versions and commit")


def run_bench(settings: AppSettings, arguments: argparse.Namespace) -> int:
    """Run one benchmark, print its table, write its JSON; returns the exit code."""
    from app.benchmarks.decode import measure_decode

    result = measure_decode(
        settings,
        contexts=arguments.contexts,
        budgets=arguments.budgets or [settings.token_budget],
        steps=arguments.steps,
        rounds=arguments.rounds,
        text=arguments.text,
        on_progress=lambda message: print(message, file=sys.stderr, flush=True),
    )
    print(format_table(result["rows"]))
    if arguments.json:
        write_json(arguments.json, result)
    return 0
