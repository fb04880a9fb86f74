"""Answers of the embedded model, sparse against dense."""

from __future__ import annotations

import json

import pytest

from app import cli
from app.errors import UserFacingError
from app.measure.evaluation.answers import _split_prompt
from app.measure.evaluation.question import LongQuestion


def _tokenize(text, **_):
    """A token per three characters."""
    ends = [min(start + 3, len(text)) for start in range(0, len(text), 3)]
    return {"input_ids": list(range(len(ends))), "offset_mapping": [(end - 3, end) for end in ends]}


@pytest.mark.parametrize("context", ["abc", "abcd", "abcde", "abcdef"])
def test_the_question_gets_the_token_on_the_border_and_nothing_is_lost(context):
    question = LongQuestion("t", context, "Who?", ("x",), "any", 4, None)
    before, asked = _split_prompt(_tokenize, question)
    assert before + asked == list(range(-(-len(question.prompt) // 3)))
    assert len(before) == (len(context) + 2) // 3


@pytest.mark.slow
def test_a_full_budget_answers_as_dense_does(tmp_path, embedded_data_dir):
    result_file, plots = tmp_path / "passkey.json", tmp_path / "plots"
    code = cli.main(
        ["eval", "passkey", "--lengths", "512", "--trials", "2", "--budgets", "64,1024", "--dtype", "float32",
         "--data-dir", str(embedded_data_dir), "--json", str(result_file), "--plot", str(plots)]
    )  # fmt: skip
    assert code == 0
    result = json.loads(result_file.read_text())
    assert [row["task"] for row in result["rows"]] == ["passkey/filler"] * 2 + ["passkey/the-happy-prince.pdf"] * 2
    for row in result["rows"]:
        assert (row["context_tokens"], row["trials"]) == (512, 2)
        if row["token_budget"] == 1024:
            assert row["agreement"] == 1.0
            assert (row["accuracy"], row["f1"]) == (row["dense_accuracy"], row["dense_f1"])
    # The model can do this much: a test of the harness, as a wrong split of the prompt would lose it.
    assert max(row["dense_accuracy"] for row in result["rows"]) == 1.0
    assert len(result["answers"]) == 8
    assert "<svg" in (plots / "passkey.svg").read_text()


def test_longbench_without_its_folder_says_what_is_missing(capsys):
    with pytest.raises(SystemExit):
        cli.main(["eval", "longbench"])
    assert "launch.py eval longbench: error: the following arguments are required: --folder" in capsys.readouterr().err


@pytest.mark.slow
def test_longbench_is_asked_from_a_folder(tmp_path, embedded_data_dir):
    record = {"input": "Who keeps the lamp?", "context": "Ida keeps the lamp. " * 40, "answers": ["Ida"]}
    (tmp_path / "hotpotqa.jsonl").write_text(json.dumps(record) + "\n")
    result_file = tmp_path / "out.json"
    cli.main(
        ["eval", "longbench", "--folder", str(tmp_path), "--lengths", "512", "--budgets", "1024", "--trials", "1",
         "--data-dir", str(embedded_data_dir), "--json", str(result_file)]
    )  # fmt: skip
    (row,) = json.loads(result_file.read_text())["rows"]
    assert (row["task"], row["trials"], row["agreement"]) == ("longbench/hotpotqa", 1, 1.0)


def test_drawing_without_matplotlib_is_refused_before_measuring(monkeypatch, embedded_data_dir):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserFacingError, match="--plot needs matplotlib"):
        cli.main(["eval", "passkey", "--plot", "x", "--data-dir", str(embedded_data_dir)])
