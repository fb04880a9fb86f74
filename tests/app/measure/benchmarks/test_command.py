"""The command line of `bench`: what is measured, and where table, JSON and plot go."""

from __future__ import annotations

import json
import sys

import pytest

from app import cli
from app.errors import UserFacingError
from app.measure.benchmarks import decode_shapes, kernels
from app.measure.benchmarks.subcommands import BENCHMARKS

KERNEL_ROWS = [
    {
        "q_heads": 32,
        "kv_heads": 8,
        "head_dim": 128,
        "context_tokens": context,
        "token_budget": budget,
        "page_size": 16,
        "dense_us": {"ours": 30.0, "sdpa_flash": 40.0},
        "quest_us": {"score": 6.0, "select": 4.0, "attend": 5.0, "total": 14.0},
        "speedup": 2.1,
        "byte_bound_us": 4.0,
        "bound_fraction": 0.3,
        "max_relative_error": 2e-3,
    }
    for context in (8192, 32768)
    for budget in (512, 1024)
]


@pytest.fixture
def measured(monkeypatch):
    """Stands in for measurements on a GPU; the arguments they were asked with."""
    calls = {}

    def stand_in(name, rows):
        def measure(*arguments, **options):
            calls[name] = (arguments, options)
            return {"benchmark": name, "model": "a", "rows": rows, "skipped": [{"name": "x", "reason": "no room"}]}

        return measure

    monkeypatch.setattr(kernels, "measure_kernels", stand_in("kernels", KERNEL_ROWS))
    monkeypatch.setattr(decode_shapes, "measure_decode_shapes", stand_in("decode", []))
    return calls


def test_table_json_and_plot_are_written(measured, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    files = ["--json", str(tmp_path / "kernels.json"), "--plot", str(tmp_path / "plots")]
    assert cli.main(["bench", "kernels", "--contexts", "8192,32768", "--budgets", "512,1024", *files]) == 0
    assert measured["kernels"][1]["contexts"] == [8192, 32768]
    assert measured["kernels"][1]["layout"].page_size == 16
    assert json.loads((tmp_path / "kernels.json").read_text())["rows"] == KERNEL_ROWS
    assert "<svg" in (tmp_path / "plots" / "kernels.svg").read_text()
    output = capsys.readouterr()
    assert "dense_us.sdpa_flash" in output.out and "quest_us.total" in output.out
    assert "Note: name=x: no room" in output.err


def test_the_layout_can_be_that_of_the_settings(measured):
    cli.main(["bench", "kernels", "--layout", "settings", "--selection", "quest", "--page-size", "8"])
    layout = measured["kernels"][1]["layout"]
    assert (layout.selection, layout.page_size, layout.summary_bits) == ("quest", 8, 8)


def test_nothing_measured_is_an_error_that_says_why(measured):
    arguments = ["--shape", "llama-2-7b,qwen3-4b", "--weight-bits", "16,4", "--rivals", "none"]
    with pytest.raises(UserFacingError, match="Nothing could be measured.*no room"):
        cli.main(["bench", "decode", *arguments])
    asked = measured["decode"][1]
    assert [shape.name for shape in asked["shapes"]] == ["llama-2-7b", "qwen3-4b"]
    assert (asked["weight_bits"], asked["rivals"], asked["contexts"]) == ([16, 4], (), (8192, 32768, 131072))


def test_plots_of_the_other_benchmarks(tmp_path):
    pytest.importorskip("matplotlib")
    from app.measure.benchmarks.plots import BOUND_LABEL, draw_result

    decode = {"engine": "quest-chat", "shape": "tiny", "attention": "quest", "weight_bits": 4, "context_tokens": 512,
              "token_budget": 64, "ms_per_token": 2.0, "byte_bound_ms": 1.0}  # fmt: skip
    of_loaded = {"engine": "transformers", "attention": "sdpa", "context_tokens": 512, "token_budget": None,
                 "ms_per_token": 2.0}  # fmt: skip
    prefill = {"engine": "quest-chat", "shape": "tiny", "context_tokens": 512, "tokens_per_s": 9.0}
    traced = {"context_tokens": 512, "token_budget": 64, "ms_per_token": 2.0, "ms_per_token_without_trace": 1.0}
    for benchmark, row, curve in (
        ("decode", decode, "4-bit weights"),
        ("decode", decode, BOUND_LABEL),
        ("decode", of_loaded, "transformers, sdpa"),
        ("prefill", prefill, "quest-chat"),
        ("trace", traced, "budget 64, not traced"),
    ):
        path = draw_result({"benchmark": benchmark, "model": "a", "rows": [row]}, tmp_path)
        assert path == tmp_path / f"{benchmark}.svg"
        assert curve in path.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shape", "gpt-5"], "'gpt-5' is none of llama-2-7b"),
        (["--rivals", "vllm"], "'vllm' is none of transformers"),
    ],
)
def test_unknown_names_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        cli.main(["bench", "decode", *arguments])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trace", "--shape", "llama-2-7b,qwen3-4b"], "'llama-2-7b,qwen3-4b' is none of"),
        (["decode", "--steps", "0"], "must be at least 1, not 0"),
        (["page", "--plot", "x"], "launch.py bench page: error: unrecognized arguments: --plot x"),
        (["kernels", "--rivals", "none"], "launch.py bench kernels: error: unrecognized arguments: --rivals none"),
        (["speed"], "invalid choice: 'speed' (choose from 'decode', 'kernels'"),
        ([], "the following arguments are required: BENCHMARK"),
    ],
)
def test_a_benchmark_refuses_what_it_does_not_take(arguments, message, capsys):
    with pytest.raises(SystemExit):
        cli.main(["bench", *arguments])
    assert message in capsys.readouterr().err


def test_what_does_not_go_together_is_refused(monkeypatch, tmp_path):
    data = ["--data-dir", str(tmp_path), "--device", "cpu"]
    with pytest.raises(UserFacingError, match="Several --weight-bits"):
        cli.main(["bench", "decode", "--weight-bits", "8,4", *data])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserFacingError, match="--plot needs matplotlib"):
        cli.main(["bench", "decode", "--plot", "x", *data])


def test_help_names_every_benchmark(capsys):
    with pytest.raises(SystemExit):
        cli.main(["bench", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert all(f"{name} {benchmark.help}" in text for name, benchmark in BENCHMARKS.items())


@pytest.mark.parametrize("name", BENCHMARKS)
def test_help_shows_only_what_a_benchmark_takes(name, capsys):
    with pytest.raises(SystemExit):
        cli.main(["bench", name, "--help"])
    text = capsys.readouterr().out
    assert ("--shape" in text) == (name in ("decode", "prefill", "trace", "reopen"))
    assert ("--steps" in text) == (name in ("decode", "trace", "cpu", "api"))
    assert ("--plot" in text) == (name not in ("products", "reopen", "page", "api"))
    assert ("--model " in text) == (name not in ("kernels", "products"))


def test_the_page_is_measured_only_where_a_browser_can_be_driven(monkeypatch):
    monkeypatch.setitem(sys.modules, "playwright.sync_api", None)
    with pytest.raises(UserFacingError, match="playwright, which is not installed.*requirements-dev.txt"):
        cli.main(["bench", "page"])
