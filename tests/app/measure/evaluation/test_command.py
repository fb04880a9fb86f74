"""The command line of `eval`: each evaluation has flags of its own."""

from __future__ import annotations

import pytest

from app import cli
from app.measure.evaluation.subcommands import EVALUATIONS


def test_help_names_every_evaluation(capsys):
    with pytest.raises(SystemExit):
        cli.main(["eval", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert all(f"{name} {evaluation.help}" in text for name, evaluation in EVALUATIONS.items())


@pytest.mark.parametrize("name", EVALUATIONS)
def test_help_shows_only_what_an_evaluation_takes(name, capsys):
    with pytest.raises(SystemExit):
        cli.main(["eval", name, "--help"])
    text = capsys.readouterr().out
    assert ("--scored-tokens" in text) == (name in ("perplexity", "recall"))
    assert ("--lengths" in text) == (name in ("passkey", "needles", "qa", "longbench"))
    assert ("--tasks" in text) == (name in ("needles", "longbench"))
    assert ("--folder" in text) == (name in ("longbench", "documents"))
    assert ("--context-tokens" in text) == (name in ("perplexity", "recall", "sources"))
    # What the product does not offer is here to compare it with.
    assert ("h2o" in text) == (name != "documents")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["passkey", "--folder", "x"], "launch.py eval passkey: error: unrecognized arguments: --folder x"),
        (["documents", "--budgets", "64"], "launch.py eval documents: error: unrecognized arguments: --budgets 64"),
        (["qa", "--trials", "0"], "must be at least 1, not 0"),
        (["questions"], "invalid choice: 'questions' (choose from 'perplexity', 'passkey'"),
        ([], "the following arguments are required: EVALUATION"),
    ],
)
def test_an_evaluation_refuses_what_it_does_not_take(arguments, message, capsys):
    with pytest.raises(SystemExit):
        cli.main(["eval", *arguments])
    assert message in capsys.readouterr().err
