"""`bench kernels` on tiny shapes: its columns, its checks, its bounds, and what it leaves out."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import kernels.cpu
import kernels.gpu
from app.errors import UserFacingError
from app.measure.benchmarks.kernels import measure_kernels
from app.measure.benchmarks.subjects.kernel_cases import (
    PAPER_LAYOUT,
    AttentionShape,
    PageLayout,
    build_case,
    choose_layers,
)

CPU = torch.device("cpu")
SHAPE = AttentionShape(4, 2, 16)
COLUMNS = [
    "q_heads", "kv_heads", "head_dim", "context_tokens", "token_budget", "page_size", "dense_us", "quest_us",
    "speedup", "byte_bound_us", "bound_fraction", "max_relative_error",
]  # fmt: skip


def measure(operators=kernels.cpu, **changes):
    settings = {"contexts": [100, 200], "budgets": [48, 64], "rounds": 1, "shapes": [SHAPE], "dtype": torch.float32}
    return measure_kernels(**{**settings, **changes}, device=CPU, kernels=operators)


def test_rows_have_all_columns():
    result = measure()
    assert [(row["context_tokens"], row["token_budget"]) for row in result["rows"]] == [
        (100, 48), (100, 64), (200, 48), (200, 64)
    ]  # fmt: skip
    for row in result["rows"]:
        assert list(row) == COLUMNS
        assert list(row["quest_us"]) == ["score", "select", "attend", "total"]
        assert {"ours", "sdpa_flash"} <= set(row["dense_us"])
        assert row["speedup"] == min(row["dense_us"].values()) / row["quest_us"]["total"]
        assert row["max_relative_error"] < 1e-5
    # 7 pages of bounds for 2 heads, and 48 tokens of keys and values, of 16 numbers in 4 bytes.
    read_bytes = 7 * 2 * 2 * 64 + 48 * 2 * 2 * 64
    assert result["rows"][0]["byte_bound_us"] == pytest.approx(read_bytes / result["copy_bytes_per_s"] * 1e6)


def test_a_rival_that_cannot_run_is_left_out_with_its_reason():
    result = measure(contexts=[100])
    skipped = {each["name"]: each["reason"] for each in result["skipped"]}
    assert "sdpa_cudnn" in skipped and skipped["sdpa_cudnn"]
    assert "sdpa_cudnn" not in result["rows"][0]["dense_us"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are compiled here")
def test_the_triton_kernels_interpreted():
    result = measure(kernels.gpu, contexts=[60], budgets=[48])
    assert result["rows"][0]["max_relative_error"] < 1e-5


@pytest.mark.gpu
@pytest.mark.parametrize("layout", [PAPER_LAYOUT, PageLayout("mean", 4, 8), PageLayout("mean", 4, 8, 8)])
def test_the_triton_kernels_compiled(layout):
    result = measure_kernels(contexts=[1024], budgets=[256], rounds=1, layout=layout)
    assert len(result["rows"]) == 2
    assert all({"ours", "sdpa_flash", "sdpa_cudnn"} <= set(row["dense_us"]) for row in result["rows"])


@pytest.mark.parametrize("operator", ["dense_decode_attention", "choose_and_attend"])
@pytest.mark.parametrize("factor", [1.03, float("nan")])
def test_wrong_results_are_never_timed(operator, factor):
    wrong = SimpleNamespace(**{name: getattr(kernels.cpu, name) for name in kernels.cpu.__all__})
    right = getattr(kernels.cpu, operator)

    def compute_wrongly(*arguments):
        attended = right(*arguments)
        return (attended[0] * factor, *attended[1:]) if isinstance(attended, tuple) else attended * factor

    setattr(wrong, operator, compute_wrongly)
    with pytest.raises(UserFacingError, match="not timed"):
        measure(wrong)


def test_budgets_that_hold_the_context_are_left_out():
    result = measure(contexts=[60, 100], budgets=[64])
    assert [row["context_tokens"] for row in result["rows"]] == [100]
    assert ("all", 60) in {(each["name"], each["context_tokens"]) for each in result["skipped"]}


def test_the_layout_of_the_settings():
    result = measure(contexts=[100], layout=PageLayout("mean", 4, 8))
    assert [row["page_size"] for row in result["rows"]] == [4, 4]
    # 25 pages for 2 heads, each a mean of 16 in 1 byte and a scale in 4.
    read_bytes = 25 * 2 * 20 + 48 * 2 * 2 * 64
    assert result["rows"][0]["byte_bound_us"] == pytest.approx(read_bytes / result["copy_bytes_per_s"] * 1e6)


def test_layers_outgrow_the_cache_and_fit_the_memory():
    shape, tokens, cache_bytes = AttentionShape(32, 8, 128), 8192, 50 * 2**20
    # Bounds of 512 pages in 512 bytes, and 512 tokens of 512 bytes, for 8 heads: 4 MiB. 50 of them are four caches.
    arguments = (shape, PAPER_LAYOUT, tokens, 512, torch.bfloat16, cache_bytes)
    assert choose_layers(*arguments, free_bytes=2**40) == 50
    # 34 MiB in pages with bounds, 32 MiB contiguous.
    assert choose_layers(*arguments, free_bytes=10 * 66 * 2**20) == 8
    assert choose_layers(*arguments, free_bytes=2**20) == 0
    assert choose_layers(shape, PAPER_LAYOUT, 524288, 4096, torch.bfloat16, cache_bytes, 2**40) == 4


def test_caches_are_random_and_their_bounds_hold():
    case = build_case(SHAPE, PAPER_LAYOUT, 100, 3, torch.float32, CPU, kernels.cpu)
    assert sorted(case.sequence.page_table.tolist()) == list(range(7))
    assert case.sequence.page_table.tolist() != list(range(7))
    first, last = case.layers[0], case.layers[-1]
    assert not torch.equal(first.key_pages[case.sequence.page_table[0]], last.key_pages[case.sequence.page_table[0]])
    for logical, page in enumerate(case.sequence.page_table.tolist()):
        keys = last.key_pages[page][:, : min(16, 100 - 16 * logical)]
        assert torch.equal(last.summaries[page][:, 0], keys.amin(dim=1))
        assert torch.equal(last.summaries[page][:, 1], keys.amax(dim=1))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    with pytest.raises(UserFacingError, match="no CUDA GPU"):
        measure_kernels(contexts=[100], budgets=[48], rounds=1)
