"""`bench products` on tiny matrices: its columns, its check, and what it leaves out."""

from __future__ import annotations

import pytest
import torch

import kernels.cpu
from app import cli
from app.errors import UserFacingError
from app.measure.benchmarks.products import measure_products


def measure():
    return measure_products(rounds=1, shapes=[(96, 128)], dtype=torch.float32, device=torch.device("cpu"))


def test_every_width_is_checked_and_measured():
    result = measure()
    ours = [row for row in result["rows"] if row["engine"] == "quest-chat"]
    assert [(row["weight_bits"], row["group_size"]) for row in ours] == [(8, 32), (8, 128), (4, 32), (4, 128)]
    # 96 rows of 128 channels in 4 bits, and for each group of 32 two float16 numbers.
    assert ours[2]["bytes"] == 96 * 64 + 96 * 4 * 2 * 2
    for row in result["rows"]:
        assert row["max_relative_error"] < 1e-5
        # From microseconds back to seconds the last digit may differ.
        assert row["bytes_per_s"] == pytest.approx(row["bytes"] / (row["us"] * 1e-6), rel=1e-12)
        assert row["bandwidth_share"] == row["bytes_per_s"] / result["copy_bytes_per_s"]


def test_a_rival_that_cannot_run_is_left_out_with_its_reason():
    (skipped,) = measure()["skipped"]
    assert (skipped["engine"], skipped["weight_bits"]) == ("torch", 4) and skipped["reason"]


def test_a_wrong_product_is_not_timed(monkeypatch):
    right = kernels.cpu.quantized_linear
    monkeypatch.setattr(kernels.cpu, "quantized_linear", lambda *arguments: right(*arguments) * 1.1)
    with pytest.raises(UserFacingError, match="differs from plain torch by 0.1"):
        measure()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    with pytest.raises(UserFacingError, match="no CUDA GPU"):
        cli.main(["bench", "products"])
