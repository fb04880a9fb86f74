"""The `bench` subcommand: runs one benchmark, and says where its rows go."""

from __future__ import annotations

import argparse

from app.errors import UserFacingError
from app.measure.benchmarks.subcommands import BENCHMARKS
from app.measure.measurement import add_measurements, plot_folder, print_progress
from app.measure.result_tables import format_table, write_json


def add_benchmarks(parser: argparse.ArgumentParser) -> None:
    """Give `bench` a subcommand for each benchmark, with the flags it takes."""
    add_measurements(parser, "benchmark", BENCHMARKS)


def run_bench(arguments: argparse.Namespace) -> int:
    """Run one benchmark, print its table, write its JSON and plot; returns the exit code."""
    result = BENCHMARKS[arguments.benchmark].run(arguments)
    skipped = [
        " ".join(f"{name}={value}" for name, value in each.items() if name != "reason") + f": {each['reason']}"
        for each in result.get("skipped", [])
    ]
    if not result["rows"]:
        raise UserFacingError("Nothing could be measured. " + "; ".join(skipped))
    print(format_table(result["rows"]))
    for further in ("agreement", "exact_rounds"):
        if result.get(further):
            print("\n" + format_table(result[further]))
    for each in skipped:
        print_progress(f"Note: {each}")
    if arguments.json:
        write_json(arguments.json, result)
    if folder := plot_folder(arguments):
        from app.measure.benchmarks.plots import draw_result

        print_progress(f"Drawn: {draw_result(result, folder)}")
    return 0
