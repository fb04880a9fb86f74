"""Threads that share items: each is written once, whoever stalls, and nobody waits for helpers that never come."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from kernels.cpu_tools.compile import compiled
from kernels.cpu_tools.work_sharing import StepThreads, begin_write, claim, finish, new_progress

PHASES, ITEMS = 40, 13


@compiled
def run_phases(progress, sums):
    """Each item of a phase adds up what the phase before has left; written twice, or too early, it would be wrong."""
    for phase in range(PHASES):
        item = claim(progress, phase, ITEMS)
        while item < ITEMS:
            total = item + 1.0
            for other in range(ITEMS):
                total += sums[phase, other] / ITEMS
            if begin_write(progress, phase, item):
                sums[phase + 1, item] += total
                finish(progress, phase)
            item = claim(progress, phase, ITEMS)


def new_run():
    return new_progress(PHASES, ITEMS), np.zeros((PHASES + 1, ITEMS))


@pytest.fixture(scope="module")
def expected():
    progress, sums = new_run()
    run_phases(progress, sums)
    assert np.allclose(sums[1], np.arange(ITEMS) + 1)
    return sums


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_each_item_is_written_once(expected, threads):
    shared = StepThreads(threads)
    for _ in range(20):
        progress, sums = new_run()
        shared.run(run_phases, progress, sums)
        assert np.array_equal(sums, expected)
    shared.close()


@pytest.mark.parametrize("stalled", [1, 3, ITEMS])
def test_items_of_a_stalled_thread_are_taken_over_and_it_writes_nothing_later(expected, stalled):
    progress, sums = new_run()
    claimed = [(phase, claim(progress, phase, ITEMS)) for phase in range(PHASES) for _ in range(stalled)]
    run_phases(progress, sums)
    assert np.array_equal(sums, expected)
    assert not any(begin_write(progress, phase, item) for phase, item in claimed)


def test_a_thread_that_comes_after_the_end_finds_nothing_to_do(expected):
    progress, sums = new_run()
    run_phases(progress, sums)
    run_phases(progress, sums)
    assert np.array_equal(sums, expected)


def test_an_item_that_is_being_written_is_waited_for(expected):
    progress, sums = new_run()
    item = claim(progress, 0, ITEMS)
    assert begin_write(progress, 0, item)
    thread = threading.Thread(target=run_phases, args=(progress, sums))
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    sums[1, item] += item + 1
    finish(progress, 0)
    thread.join()
    assert np.array_equal(sums, expected)


def test_helpers_that_never_come_delay_nobody(expected, monkeypatch):
    monkeypatch.setattr(threading.Thread, "start", lambda thread: None)
    shared, (progress, sums) = StepThreads(4), new_run()
    shared.run(run_phases, progress, sums)
    assert np.array_equal(sums, expected)


def test_closing_waits_for_a_helper_that_is_late():
    caller, ended = threading.current_thread(), []
    go_on = threading.Event()

    def late_helper():
        if threading.current_thread() is not caller:
            go_on.wait(10)
            ended.append(True)

    shared = StepThreads(2)
    shared.run(late_helper)
    threading.Timer(0.05, go_on.set).start()
    shared.close()
    assert ended == [True]
