"""The `bench` subcommand: runs one benchmark, and says where its rows go."""

from __future__ import annotations

import argparse

from app.errors import UserFacingError
from app.measure.benchmarks.subcommands import BENCHMARKS, Benchmark, print_progress
from app.measure.result_tables import format_table, write_json
from app.settings import settings_from


def add_benchmarks(parser: argparse.ArgumentParser) -> None:
    """Give `bench` a subcommand for each benchmark, with the flags it takes."""
    subcommands = parser.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    for name, benchmark in BENCHMARKS.items():
        own = subcommands.add_parser(name, help=benchmark.help, description=f"Measures {benchmark.help}.")
        benchmark.declare(own)
        own.set_defaults(parser=own)


def run_bench(arguments: argparse.Namespace) -> int:
    """Run one benchmark, print its table, write its JSON and plot; returns the exit code."""
    benchmark: Benchmark = BENCHMARKS[arguments.benchmark]
    plot_folder = arguments.plot if benchmark.draws else None
    if plot_folder:
        from app.measure.svg_files import require_matplotlib

        require_matplotlib()  # minutes of measurement should not end with its absence
    result = benchmark.measure(settings_from(arguments), arguments)
    skipped = [
        " ".join(f"{name}={value}" for name, value in each.items() if name != "reason") + f": {each['reason']}"
        for each in result.get("skipped", [])
    ]
    if not result["rows"]:
        raise UserFacingError("Nothing could be measured. " + "; ".join(skipped))
    print(format_table(result["rows"]))
    if result.get("agreement"):
        print("\n" + format_table(result["agreement"]))
    for each in skipped:
        print_progress(f"Note: {each}")
    if arguments.json:
        write_json(arguments.json, result)
    if plot_folder:
        from app.measure.benchmarks.plots import draw_result

        print_progress(f"Drawn: {draw_result(result, plot_folder)}")
    return 0
