"""LongBench files become questions that fit the window, and what is missing is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.errors import UserFacingError
from app.measure.evaluation.longbench import LONGBENCH_SETS, build_longbench_questions

WORDS: list[str] = []


def encode(text: str) -> list[int]:
    """One id a word."""
    for word in text.split():
        if word not in WORDS:
            WORDS.append(word)
    return [WORDS.index(word) for word in text.split()]


def decode(ids: list[int]) -> str:
    # The space after the last word keeps it apart from what follows a cut.
    return "".join(f"{WORDS[each]} " for each in ids)


def write_set(folder: Path, name: str, contexts: list[str]) -> None:
    records = [
        {
            "input": f"Who sailed ship {index}?",
            "context": context,
            "answers": ["Ida Marrow", "Marrow"],
            "dataset": name,
            "length": len(context.split()),
            "all_classes": None,
            "language": "en",
            "_id": str(index),
        }
        for index, context in enumerate(contexts)
    ]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


@pytest.mark.parametrize("name", LONGBENCH_SETS)
def test_a_short_context_is_kept_whole(tmp_path, name):
    write_set(tmp_path, name, ["Ida Marrow {sailed} ship 0.\nIt sank."])
    (question,) = build_longbench_questions(tmp_path, 200, encode, decode)
    assert question.task == f"longbench/{name}"
    assert "Ida Marrow {sailed} ship 0.\nIt sank." in question.context
    assert "Who sailed ship 0?" in question.question and "{" not in question.question
    assert (question.answers, question.needs, question.depth) == (("Ida Marrow", "Marrow"), "any", None)
    assert question.max_new_tokens == LONGBENCH_SETS[name].max_new_tokens


@pytest.mark.parametrize("context_tokens", [100, 101, 500])
def test_a_long_context_loses_its_middle(tmp_path, context_tokens):
    write_set(tmp_path, "hotpotqa", [" ".join(f"word{index}" for index in range(2000))])
    (question,) = build_longbench_questions(tmp_path, context_tokens, encode, decode)
    assert len(encode(question.prompt)) == context_tokens
    kept = [int(word[4:]) for word in question.context.split() if word.startswith("word")]
    half = (len(kept) + 1) // 2
    assert kept == [*range(half), *range(2000 - (len(kept) - half), 2000)]


def test_a_context_that_encodes_to_more_than_was_kept_still_fits(tmp_path):
    write_set(tmp_path, "qasper", [" ".join(f"word{index}" for index in range(2000))])

    def decode_longer(ids: list[int]) -> str:
        return decode(ids).replace("0 ", "0 tail ")

    (question,) = build_longbench_questions(tmp_path, 300, encode, decode_longer)
    assert "tail" in question.context
    assert 0.9 * 300 <= len(encode(question.prompt)) <= 300


def test_files_names_and_numbers_are_chosen(tmp_path):
    write_set(tmp_path, "musique", ["One.", "Two.", "Three."])
    write_set(tmp_path, "qasper_e", ["Four.", "Five."])
    write_set(tmp_path, "gov_report", ["A report."])
    everything = build_longbench_questions(tmp_path, 200, encode, decode)
    assert [question.task for question in everything] == ["longbench/qasper_e"] * 2 + ["longbench/musique"] * 3
    some = build_longbench_questions(tmp_path, 200, encode, decode, names=["musique"], questions_per_set=2)
    assert [question.question for question in some] == [question.question for question in everything[2:4]]


@pytest.mark.parametrize("folder", [".", "missing"])
def test_a_folder_without_known_files_names_what_is_expected(tmp_path, folder):
    write_set(tmp_path, "gov_report", ["A report."])
    with pytest.raises(UserFacingError, match=r"no LongBench file .*qasper\.jsonl, multifieldqa_en\.jsonl, .*with _e"):
        build_longbench_questions(tmp_path / folder, 200, encode, decode)


def test_a_missing_file_is_named(tmp_path):
    write_set(tmp_path, "musique", ["One."])
    with pytest.raises(UserFacingError, match=r"no LongBench file hotpotqa\.jsonl"):
        build_longbench_questions(tmp_path, 200, encode, decode, names=["musique", "hotpotqa"])


@pytest.mark.parametrize("line", ["{not json", "[]", '{"input": "Who?", "context": "Text."}'])
def test_a_broken_line_is_named(tmp_path, line):
    write_set(tmp_path, "musique", ["One."])
    with (tmp_path / "musique.jsonl").open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    with pytest.raises(UserFacingError, match=r"Line 3 of .*musique\.jsonl is no LongBench record"):
        build_longbench_questions(tmp_path, 200, encode, decode)


def test_too_small_a_window_says_what_to_do(tmp_path):
    write_set(tmp_path, "musique", ["One."])
    with pytest.raises(UserFacingError, match="window of 10 tokens .* musique.*--context-tokens"):
        build_longbench_questions(tmp_path, 10, encode, decode)
