"""Whole numbers and finite numbers, checked where they enter and quoted where they are wrong.

A comparison lets NaN pass, and JSON has texts, lists and `true` where a number is meant.
"""

from __future__ import annotations

import math
import reprlib
from numbers import Integral, Real
from typing import Any

_REQUIREMENTS = {0: "must not be negative", 1: "must be positive"}


def check_whole(name: str, value: Any, minimum: int, maximum: int | None = None) -> None:
    """Pass a whole number from `minimum` to `maximum`.

    Raises:
        ValueError: for anything else.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ValueError(f"{name} must be a whole number, got {reprlib.repr(value)}")
    if value < minimum:
        requirement = _REQUIREMENTS.get(minimum, f"must be at least {minimum}")
        raise ValueError(f"{name} {requirement}, got {reprlib.repr(value)}")
    if maximum is not None and value > maximum:
        raise ValueError(f"{name} must be at most {maximum}, got {reprlib.repr(value)}")


def check_number(name: str, value: Any) -> float:
    """Pass a finite number; returns it as a float.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(value, Real) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise ValueError(f"{name} must be a finite number, got {reprlib.repr(value)}")
