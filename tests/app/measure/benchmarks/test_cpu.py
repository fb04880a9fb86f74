"""`bench cpu` over a tiny random model: its rows, its check, its file, and what it refuses. No time is asserted."""

from __future__ import annotations

import json
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch

from app import cli
from app.errors import UserFacingError
from app.measure.benchmarks import cpu
from app.measure.benchmarks.rivals import llamacpp_rival
from app.measure.benchmarks.rivals.llamacpp_rival import LlamaCppModel, find_gguf
from app.settings import AppSettings
from quest_core.engine import read_model_config

ROW_COLUMNS = [
    "engine", "attention", "dtype", "context_tokens", "token_budget", "prefill_tokens_per_s", "decode_tokens_per_s",
    "peak_memory_bytes", "accepted_share",
]  # fmt: skip


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    path = tmp_path_factory.mktemp("book") / "book.txt"
    path.write_text("The lamp was lit at dusk, and the boats came home by its light. " * 40)
    return path


@pytest.fixture(scope="module")
def measure(tmp_path_factory, tiny_model_folder, book):
    settings = AppSettings(
        data_dir=tmp_path_factory.mktemp("data"), model=str(tiny_model_folder), dtype="float32", page_size=16
    )

    def run(dtype="float32", **changes):
        options = {
            "contexts": [100, 300], "budgets": [64, 512], "steps": 2, "rounds": 2, "rivals": ("transformers-fp32",),
            "with_llamacpp": False, "scored_tokens": 20, "text": book,
        }  # fmt: skip
        return cpu.measure_cpu(replace(settings, dtype=dtype), **{**options, **changes})

    return run


@pytest.fixture(scope="module")
def result(measure):
    return measure(rivals=tuple(cpu.RIVALS))


def test_rows_of_all_contestants(result):
    assert [list(row) for row in result["rows"]] == [ROW_COLUMNS] * 14
    assert [(row["engine"], row["attention"], row["dtype"], row["token_budget"]) for row in result["rows"][:7]] == [
        ("quest-chat", "dense", "float32", None),
        ("quest-chat", "quest", "float32", 64),
        ("quest-chat", "quest", "float32", 512),
        ("quest-chat", "auto", "float32", None),
        ("quest-chat", "exact", "float32", None),
        ("transformers", "sdpa", "bfloat16", None),
        ("transformers", "sdpa", "float32", None),
    ]
    assert [row["context_tokens"] for row in result["rows"]] == [100] * 7 + [300] * 7
    assert all(row["prefill_tokens_per_s"] > 0 and row["decode_tokens_per_s"] > 0 for row in result["rows"])
    # Over many stretches, in the warm-up, and at each context.
    assert [check["context_tokens"] for check in result["checks"]] == [cpu.WARM_UP_CONTEXT] * 2 + [100, 300]
    assert result["machine"]["versions"]["torch"] == torch.__version__


def test_agreement_is_exact_where_everything_is_read(result):
    small, full = result["agreement"][2:]
    assert full["ratio"] == pytest.approx(1.0, abs=1e-4)
    assert small["ratio"] != pytest.approx(1.0, abs=1e-4)
    assert (small["context_tokens"], small["scored_tokens"], small["text_repeats"]) == (300, 20, False)


def test_rounding_is_judged_where_the_reference_took_part(measure):
    """With float32 beside bfloat16 at a context; without, it is only told."""
    judged = measure(contexts=[100], rivals=tuple(cpu.RIVALS), scored_tokens=0, dtype="bfloat16")["checks"][-1]
    assert (judged["context_tokens"], judged["logits"]) == (100, cpu.LAST_TOKENS)
    assert 0 < judged["ours_relative_error"] <= 1.5 * judged["transformers_relative_error"]
    assert 0 <= judged["ours_same_token"] <= 1
    told = measure(contexts=[100], rivals=("transformers-bf16",), scored_tokens=0, dtype="bfloat16")["checks"][-1]
    assert list(told) == ["context_tokens", "logits_relative_error"]


def test_half_of_a_short_context_is_left_to_read_before(measure):
    assert measure(contexts=[30], rivals=(), budgets=[64])["agreement"][0]["scored_tokens"] == 15


def test_ours_is_checked_without_rivals_too(measure, monkeypatch):
    result = measure(contexts=[100], rivals=(), scored_tokens=0)
    assert result["agreement"] == []
    assert [row["engine"] for row in result["rows"]] == ["quest-chat"] * 5
    assert [check["context_tokens"] for check in result["checks"]] == [cpu.WARM_UP_CONTEXT]

    def wrong(*arguments):
        raise UserFacingError("Nothing was timed.")

    monkeypatch.setattr(cpu, "check_rounding", wrong)
    with pytest.raises(UserFacingError, match="Nothing was timed"):
        measure(contexts=[100], rivals=())


def test_contexts_beyond_the_models_window_are_stretched_alike(measure):
    result = measure(contexts=[1000, 1500], budgets=[64], rounds=1)
    assert [check["context_tokens"] for check in result["checks"]] == [cpu.WARM_UP_CONTEXT] * 2 + [1000, 1500]
    assert {row["context_tokens"]: row["text_repeats"] for row in result["agreement"]} == {1000: False, 1500: True}
    assert result["agreement"][-1]["ratio"] != 1.0


def test_what_does_not_fit_is_left_out_and_said(measure, monkeypatch):
    run = cpu.CpuComparison.run

    def run_short_ones(comparison, context, *arguments, **options):
        if context == 300:
            raise cpu.ModelError("no room")
        return run(comparison, context, *arguments, **options)

    monkeypatch.setattr(cpu.CpuComparison, "run", run_short_ones)
    result = measure()
    assert {row["context_tokens"] for row in result["rows"]} == {100}
    assert result["skipped"] == [{"context_tokens": 300, "reason": "no room"}]


def test_a_rival_that_would_take_too_long_is_left_out(measure, monkeypatch):
    monkeypatch.setattr(cpu, "MAX_PREFILL_S", 0.0)
    result = measure()
    assert [row["context_tokens"] for row in result["rows"] if row["engine"] == "transformers"] == [100]
    (skipped,) = result["skipped"]
    assert (skipped["engine"], skipped["context_tokens"]) == ("transformers-fp32", 300)


def test_the_command_writes_tables_json_and_plot(tmp_path, tiny_model_folder, book, capsys):
    pytest.importorskip("matplotlib")
    arguments = ["--model", str(tiny_model_folder), "--text", str(book), "--data-dir", str(tmp_path / "data")]
    arguments += ["--contexts", "100", "--budgets", "64", "--steps", "1", "--rounds", "1", "--scored-tokens", "8"]
    files = ["--json", str(tmp_path / "cpu.json"), "--plot", str(tmp_path / "plots")]
    code = cli.main(["bench", "cpu", *arguments, "--rivals", "transformers-fp32", "--dtype", "float32", *files])
    assert code == 0
    result = json.loads((tmp_path / "cpu.json").read_text())
    assert [row["attention"] for row in result["rows"]] == ["dense", "quest", "auto", "exact", "sdpa"]
    drawn = (tmp_path / "plots" / "cpu.svg").read_text()
    assert "transformers, float32" in drawn and "budget 64" in drawn
    table = capsys.readouterr().out
    assert "peak_memory_bytes" in table and "quest_perplexity" in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["decode", "--rivals", "transformers-bf16"], "'transformers-bf16' is none of transformers, transformers-comp"),
        (["cpu", "--rivals", "transformers"], "'transformers' is none of transformers-bf16, transformers-fp32, none"),
        (["cpu", "--scored-tokens", "-1"], "must be at least 0, not -1"),
        (["decode", "--rival-llamacpp"], "unrecognized arguments: --rival-llamacpp"),
        (["cpu", "--shape", "llama-2-7b"], "unrecognized arguments: --shape llama-2-7b"),
    ],
)
def test_rivals_and_flags_of_another_benchmark_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        cli.main(["bench", *arguments])
    assert message in capsys.readouterr().err


def test_llamacpp_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(UserFacingError, match="pip install llama-cpp-python"):
        cli.main(["bench", "cpu", "--rival-llamacpp", "--data-dir", str(tmp_path)])


def test_llamacpp_needs_a_gguf_file(tmp_path):
    with pytest.raises(UserFacingError, match="GGUF files only"):
        find_gguf(str(tmp_path))
    file = tmp_path / "model.Q4_1.gguf"
    file.touch()
    assert find_gguf(str(file)) == file


class FakeLlama:
    """Stands in for `llama_cpp.Llama`: after token t the likeliest is t + 1."""

    def __init__(self, path, **options):
        self.options, self.n_tokens, self.fed = options, 0, []
        self._ctx = types.SimpleNamespace(get_logits=lambda: np.ctypeslib.as_ctypes(self.scores))

    def n_vocab(self):
        return 50

    def reset(self):
        self.n_tokens = 0

    def eval(self, tokens):
        self.fed.append(list(tokens))
        self.n_tokens += len(tokens)
        self.scores = np.zeros(50, dtype=np.float32)
        self.scores[tokens[-1] + 1] = 1.0

    def close(self):
        self.fed = None


def test_llamacpp_decodes_greedily_and_goes_back(monkeypatch, tmp_path, tiny_model_folder):
    module = types.SimpleNamespace(Llama=FakeLlama, LLAMA_ROPE_SCALING_TYPE_YARN=2)
    monkeypatch.setattr(llamacpp_rival, "require_llamacpp", lambda: module)
    config = read_model_config(tiny_model_folder).with_context(2048)
    model = LlamaCppModel(tmp_path / "model.gguf", config, threads=3)
    options = model._llama.options
    assert (options["n_ctx"], options["n_threads"], options["n_threads_batch"]) == (2048, 3, 3)
    assert (options["rope_freq_scale"], options["yarn_orig_ctx"]) == (0.5, 1024)
    model.prefill([7, 8, 9])
    for _ in range(2):
        assert len(model.time_decode_steps(3)) == 3
    assert model._llama.fed == [[7, 8, 9], [10], [11], [12], [10], [11], [12]]
    assert model._llama.n_tokens == 3
