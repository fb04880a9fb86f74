"""How often a key may be guessed, by a clock of the test's own."""

from __future__ import annotations

import pytest

from app.web.access.tries import TRIES_IN_ALL, TRIES_OF_AN_ADDRESS, WINDOW_S, Tries


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tries(clock) -> Tries:
    return Tries(clock)


def test_ten_wrong_keys_a_minute_are_looked_at(tries, clock):
    for _ in range(TRIES_OF_AN_ADDRESS):
        assert tries.wait_s("10.0.0.1") == 0
        tries.add_wrong("10.0.0.1")
        clock.now += 1
    assert tries.wait_s("10.0.0.1") == WINDOW_S - TRIES_OF_AN_ADDRESS
    assert tries.wait_s("10.0.0.2") == 0
    clock.now = 1000 + WINDOW_S
    assert tries.wait_s("10.0.0.1") == 0
    tries.add_wrong("10.0.0.1")
    # The second of the ten is a second younger.
    assert tries.wait_s("10.0.0.1") == 1


def test_many_addresses_share_a_limit_that_spares_those_that_had_the_key(tries):
    tries.add_right("10.0.0.7")
    for number in range(TRIES_IN_ALL):
        tries.add_wrong(f"10.1.{number}.1")
    assert tries.wait_s("10.9.9.9") == WINDOW_S
    assert tries.wait_s("10.0.0.7") == 0
    for _ in range(TRIES_OF_AN_ADDRESS):
        tries.add_wrong("10.0.0.7")
    assert tries.wait_s("10.0.0.7") == WINDOW_S


def test_a_network_of_ipv6_is_one_address(tries):
    for number in range(TRIES_OF_AN_ADDRESS):
        tries.add_wrong(f"2001:db8::{number}:1")
    assert tries.wait_s("2001:db8::ffff") == WINDOW_S
    assert tries.wait_s("2001:db8:0:1::1") == 0
    for _ in range(TRIES_OF_AN_ADDRESS):
        tries.add_wrong("::ffff:10.0.0.3")
    assert tries.wait_s("10.0.0.3") == WINDOW_S
    assert tries.wait_s("::ffff:10.0.0.4") == 0


def test_what_is_remembered_is_bounded(tries, monkeypatch):
    monkeypatch.setattr("app.web.access.tries._MOST_ADDRESSES", 8)
    for number in range(100):
        tries.add_wrong(f"10.0.{number}.1")
        tries.add_right(f"10.0.{number}.1")
    assert len(tries._by_address) == len(tries._known) == 8
