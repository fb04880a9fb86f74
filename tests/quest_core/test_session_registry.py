"""Whose pages go first when the pool is full."""

from __future__ import annotations

import pytest

from quest_core.session_registry import SessionRegistry


class Holder:
    """Stands for a session: so many tokens in the cache."""

    def __init__(self, context_tokens: int = 10) -> None:
        self.context_tokens = context_tokens

    def truncate(self, length_tokens: int) -> None:
        self.context_tokens = length_tokens


@pytest.fixture
def registry() -> SessionRegistry:
    return SessionRegistry()


def used_in_turn(registry: SessionRegistry, count: int) -> list[Holder]:
    """Sessions of jobs 1, 2, 3 ...; the job after them runs."""
    holders = [Holder() for _ in range(count)]
    for job, holder in enumerate(holders, 1):
        registry.begin_job(job)
        registry.touch(holder)
    registry.begin_job(count + 1)
    return holders


def idle(registry: SessionRegistry) -> Holder | None:
    found = registry.oldest_idle()
    return None if found is None else found[0]


def test_the_session_idle_longest_goes_first(registry):
    first, second, third = used_in_turn(registry, 3)
    assert registry.sessions == (first, second, third)
    assert idle(registry) is first
    registry.touch(first)  # by the job that runs
    assert idle(registry) is second
    registry.begin_job(5)
    assert idle(registry) is second
    registry.touch(second)
    assert idle(registry) is third


def test_sessions_of_the_running_job_stay(registry):
    (session,) = used_in_turn(registry, 1)
    registry.begin_job(1)  # it was paused and goes on
    assert registry.oldest_idle() is None
    registry.begin_job(2)
    assert idle(registry) is session


def test_a_session_belongs_to_the_job_that_used_it_last(registry):
    first, second = used_in_turn(registry, 2)
    registry.touch(first)
    registry.begin_job(1)
    assert idle(registry) is second
    registry.begin_job(2)
    assert idle(registry) is first


def test_empty_sessions_have_nothing_to_give(registry):
    first, second = used_in_turn(registry, 2)
    first.truncate(0)
    assert idle(registry) is second
    second.truncate(0)
    assert registry.oldest_idle() is None
    assert registry.sessions == (first, second)


def test_when_a_session_was_used_is_told_on_one_clock(registry):
    first, second = used_in_turn(registry, 2)
    before = registry.now
    assert registry.oldest_idle()[1] < before
    registry.touch(first)
    assert registry.now > before
    registry.begin_job(9)
    assert registry.oldest_idle() == (second, before)


def test_a_forgotten_session_is_never_named(registry):
    first, second = used_in_turn(registry, 2)
    registry.forget(first)
    registry.forget(first)
    assert registry.sessions == (second,)
    assert idle(registry) is second
