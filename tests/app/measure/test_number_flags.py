"""Numbers on command lines."""

from __future__ import annotations

import argparse

import pytest

from app.measure.number_flags import at_least, join_numbers, number_list


def test_number_lists():
    assert number_list("256,512") == [256, 512]
    for text in ("", "a,b", "0,5"):
        with pytest.raises(argparse.ArgumentTypeError, match=repr(text)[1:-1] or "''"):
            number_list(text)
    assert number_list(join_numbers((256, 512))) == [256, 512]


def test_least_numbers():
    assert at_least(0)("0") == 0
    with pytest.raises(argparse.ArgumentTypeError, match="at least 1, not 0"):
        at_least(1)("0")
