"""The `eval` subcommand: runs one evaluation, and says where its rows go."""

from __future__ import annotations

import argparse

from app.measure.evaluation.subcommands import EVALUATIONS
from app.measure.measurement import add_measurements, plot_folder, print_progress
from app.measure.result_tables import format_table, write_json

# What the table leaves out, the JSON has.
TABLE_LEAVES_OUT = {"by_layer", "exact", "dense_exact", "page_size"}


def add_evaluations(parser: argparse.ArgumentParser) -> None:
    """Give `eval` a subcommand for each evaluation, with the flags it takes."""
    add_measurements(parser, "evaluation", EVALUATIONS)


def run_eval(arguments: argparse.Namespace) -> int:
    """Run one evaluation, print its table, write its JSON and plot; returns the exit code."""
    result = EVALUATIONS[arguments.evaluation].run(arguments)
    columns = [name for name in result["rows"][0] if name not in TABLE_LEAVES_OUT]
    print(format_table([{name: row[name] for name in columns} for row in result["rows"]]))
    if arguments.json:
        write_json(arguments.json, result)
    if folder := plot_folder(arguments):
        from app.measure.evaluation.plots import draw_result

        print_progress(f"Drawn: {draw_result(result, folder)}")
    return 0
