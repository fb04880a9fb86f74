"""The flags that several benchmarks take, each declared once. A benchmark names those that mean something to it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from app.measure.benchmarks.subjects.shapes import SHAPES, ModelShape
from app.measure.number_flags import at_least, join_numbers, number_list


def add_contexts(parser: argparse.ArgumentParser, usual: Sequence[int], of_shapes: Sequence[int] = ()) -> None:
    """--contexts; `of_shapes` is the default with `--shape`, where that differs."""
    with_shape = f"; with --shape {join_numbers(of_shapes)}" if of_shapes else ""
    parser.add_argument(
        "--contexts",
        type=number_list,
        metavar="N,N",
        help=f"context lengths in tokens (default: {join_numbers(usual)}{with_shape})",
    )


def add_budgets(parser: argparse.ArgumentParser, usual: str) -> None:
    """--budgets; `usual` is the default in words."""
    parser.add_argument("--budgets", type=number_list, metavar="N,N", help=f"token budgets of Quest (default: {usual})")


def add_rounds(parser: argparse.ArgumentParser, usual: int) -> None:
    """--rounds; of all contestants in turn."""
    parser.add_argument(
        "--rounds", type=at_least(1), default=usual, metavar="N", help="rounds, of which the median counts "
        "(default: %(default)s)"
    )  # fmt: skip


def add_steps(parser: argparse.ArgumentParser) -> None:
    """--steps, the tokens decoded in a round."""
    parser.add_argument(
        "--steps", type=at_least(1), default=32, metavar="N", help="tokens decoded in each round (default: %(default)s)"
    )


def add_text(parser: argparse.ArgumentParser, usual: str = "the sample book, repeated") -> None:
    """--text, what is read; `usual` is the default in words."""
    parser.add_argument("--text", type=Path, metavar="FILE", help=f"what to read (default: {usual})")


def add_shapes(parser: argparse.ArgumentParser) -> None:
    """--shape, several."""
    _add_shape(parser, "NAME,NAME", _shapes)


def add_shape(parser: argparse.ArgumentParser) -> None:
    """--shape, a single one, parsed as a list of one."""
    _add_shape(parser, "NAME", lambda name: [_shape(name)])


def _add_shape(parser: argparse.ArgumentParser, metavar: str, kind: Callable[[str], list[ModelShape]]) -> None:
    parser.add_argument(
        "--shape",
        type=kind,
        metavar=metavar,
        help=f"random weights of this shape instead of --model: {', '.join(SHAPES)}",
    )


def add_rivals(parser: argparse.ArgumentParser, known: tuple[str, ...], note: str = "") -> None:
    """--rivals, of those that are `known`; all of them by default."""
    parser.add_argument(
        "--rivals",
        type=lambda text: _rivals(text, known),
        default=known,
        metavar="NAME,NAME",
        help=f"of {', '.join(known)}, or none{note} (default: all)",
    )


def _shapes(text: str) -> list[ModelShape]:
    return [_shape(name) for name in text.split(",")]


def _shape(name: str) -> ModelShape:
    if name not in SHAPES:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(SHAPES)}")
    return SHAPES[name]


def _rivals(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    names = () if text == "none" else tuple(text.split(","))
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}, none")
    return names
