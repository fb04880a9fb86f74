"""The estimate of a prefill's remaining time."""

from __future__ import annotations

import pytest

from app.chat.reading.prefill_timer import PrefillTimer


def observe(timer, seconds_at, chunk, upto, total):
    for done in range(0, upto + 1, chunk):
        remaining_s = timer.remaining_s(done, total, seconds_at(done))
    return remaining_s


def test_nothing_is_known_before_the_first_chunk():
    assert PrefillTimer().remaining_s(0, 1000, 0.0) is None


def test_growing_chunk_times_are_extrapolated_exactly():
    def seconds_at(tokens):
        return 0.002 * tokens + 3e-7 * tokens**2

    remaining_s = observe(PrefillTimer(), seconds_at, chunk=512, upto=2048, total=8192)
    assert remaining_s == pytest.approx(seconds_at(8192) - seconds_at(2048), rel=1e-6)


def test_one_chunk_counts_by_the_token():
    assert observe(PrefillTimer(), lambda tokens: 0.01 * tokens, 100, 100, 400) == pytest.approx(3.0)


@pytest.mark.parametrize("times", [[0, 5, 6, 7], [0, 1, 1, 9], [0, 4, 4.1, 4.2], [0, 0, 0, 0]])
def test_odd_timings_never_give_a_negative_estimate(times):
    timer = PrefillTimer()
    for done, elapsed_s in enumerate(times):
        remaining_s = timer.remaining_s(done * 100, 1000, elapsed_s)
    assert remaining_s >= 0


def test_reused_tokens_cost_nothing():
    timer = PrefillTimer()
    timer.remaining_s(900, 1000, 0.0)
    assert timer.remaining_s(950, 1000, 1.0) == pytest.approx(1.0)
    assert timer.remaining_s(1000, 1000, 2.0) == 0.0


def test_what_comes_from_the_disk_says_nothing_of_the_rest():
    timer = PrefillTimer()
    assert timer.remaining_s(0, 4000, 0.0) is None
    # Two thousand tokens in a tenth of a second, none of them computed.
    assert timer.remaining_s(2000, 4000, 0.1, reused_tokens=2000) is None
    assert timer.remaining_s(2500, 4000, 5.1, reused_tokens=2000) == pytest.approx(15.0)
