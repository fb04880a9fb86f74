"""Numbers on the command lines of `bench` and `eval`: parsed, checked, and written as they are parsed."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence


def number_list(text: str) -> list[int]:
    """Parse "256,512,1024" for argparse."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 256,512") from None
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} holds a number below 1")
    return numbers


def join_numbers(numbers: Sequence[int]) -> str:
    """What `number_list` parses into these numbers."""
    return ",".join(map(str, numbers))


def at_least(least: int) -> Callable[[str], int]:
    """Parses a whole number that must not be smaller, for argparse."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, not {value}")
        return value

    return number
