"""Recording and rotation: what is called, how often and in which order."""

from __future__ import annotations

import weakref

import pytest
import torch

from app.measure.benchmarks.instruments.timing import measure_copy_bandwidth, record_rotation, time_in_turn

CPU = torch.device("cpu")


def test_a_rotation_visits_every_layer_in_turn():
    visited = []
    run = record_rotation(visited.append, 3, CPU)
    visited.clear()
    run()
    run()
    assert visited == [0, 1, 2, 0, 1, 2]


def test_contestants_run_in_turn():
    order = []
    times = time_in_turn({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, CPU, rounds=3)
    assert set(times) == {"a", "b"}
    switches = sum(left != right for left, right in zip(order, order[1:], strict=False))
    assert switches == 2 * 4 - 1  # one round that warms up, and three


def test_a_copy_has_a_bandwidth():
    assert measure_copy_bandwidth(CPU, copy_bytes=2**16) > 0


@pytest.mark.gpu
def test_a_graph_repeats_its_calls():
    counts = torch.zeros(3, device="cuda")
    run = record_rotation(lambda layer: counts[layer].add_(1), 3, torch.device("cuda:0"))
    counts.zero_()
    run()
    run()
    assert counts.tolist() == [2, 2, 2]


@pytest.mark.gpu
def test_what_a_graph_reads_lives_as_long_as_it():
    def record():
        source, target = torch.ones(1 << 20, device="cuda"), torch.zeros(1 << 20, device="cuda")
        return record_rotation(lambda layer: target.copy_(source), 2, torch.device("cuda:0")), weakref.ref(source)

    run, source = record()
    assert source() is not None
    del run
    assert source() is None
