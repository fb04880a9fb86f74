"""What a benchmark and an evaluation are to the command line: a subcommand with flags of its own, and a way to run.

Knows nothing of what is measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.flags import MODEL, Flag, add_flags
from app.settings import AppSettings, settings_from

# Figures must not depend on what somebody has chosen in the page.
MEASURED_MODEL = replace(
    MODEL, help="hub id, model folder or .gguf file (default: the embedded SmolLM2-135M-Instruct)"
)


@dataclass(frozen=True)
class Measurement:
    """A benchmark or an evaluation.

    Args:
        help: what is measured, in one line.
        settings: the flags of the settings that mean something to it.
        add_arguments: declares what it takes beside them.
        measure: runs it; gives `rows` and all that is kept beside them.
        draws: whether its rows make curves.
    """

    help: str
    settings: Sequence[Flag]
    add_arguments: Callable[[argparse.ArgumentParser], None]
    measure: Callable[[AppSettings, argparse.Namespace], dict[str, Any]]
    draws: bool = True

    def declare(self, parser: argparse.ArgumentParser) -> None:
        """Add all its flags to its parser."""
        self.add_arguments(parser)
        parser.add_argument("--json", type=Path, metavar="FILE", help="write rows, machine, versions and commit")
        if self.draws:
            parser.add_argument("--plot", type=Path, metavar="DIR", help="draw the rows")
        add_flags(parser, (MEASURED_MODEL if flag is MODEL else flag for flag in self.settings))

    def run(self, arguments: argparse.Namespace) -> dict[str, Any]:
        """Measure as a parsed command line says.

        Raises:
            UserFacingError: for whatever stops it, before anything is measured if its rows could not be drawn.
        """
        if plot_folder(arguments):
            from app.measure.svg_files import require_matplotlib

            require_matplotlib()
        return self.measure(settings_from(arguments), arguments)


def add_measurements(parser: argparse.ArgumentParser, kind: str, measurements: Mapping[str, Measurement]) -> None:
    """Give a parser a subcommand for each measurement; its name becomes the attribute `kind` of what is parsed."""
    subcommands = parser.add_subparsers(dest=kind, required=True, metavar=kind.upper())
    for name, measurement in measurements.items():
        sentence = f"{measurement.help[0].upper()}{measurement.help[1:]}."
        own = subcommands.add_parser(name, help=measurement.help, description=sentence)
        measurement.declare(own)
        own.set_defaults(parser=own)


def plot_folder(arguments: argparse.Namespace) -> Path | None:
    """Where the rows are to be drawn; None for nowhere."""
    return getattr(arguments, "plot", None)


def print_progress(message: str) -> None:
    """Say how far a measurement is, beside its output."""
    print(message, file=sys.stderr, flush=True)
