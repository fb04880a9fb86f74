"""`ask` in the terminal: what goes to stdout, what to stderr, and one session for many questions."""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from app.ask import ProgressLine, run_ask
from app.chat.assistant import Assistant
from app.errors import UserFacingError
from app.library import read_document
from app.models.model_choice import ModelChoice, ModelChoices
from app.models.model_loader import LoadedModel
from app.settings import AppSettings

REPORT_KEYS = [
    "answer", "model", "device", "attention", "token_budget", "page_size", "document", "prompt_tokens", "reused_tokens",
    "prefill_s", "time_to_first_token_s", "decode_tokens", "decode_tokens_per_s", "finish_reason",
    "attended_tokens", "read_all", "pages_read", "restored_tokens", "restored_bytes", "passages_found", "citations",
    "unsupported",
]  # fmt: skip


@pytest.fixture
def settings(tiny_model_folder, tmp_path) -> AppSettings:
    return AppSettings(data_dir=tmp_path, model=str(tiny_model_folder), device="cpu", dtype="float32", token_budget=64)


def arguments(documents, question="Who kept the light?", **changes) -> argparse.Namespace:
    values = {
        "documents": documents, "question": question, "questions": None, "json": False, "password": None,
        "max_new_tokens": 12, "temperature": 0.0, "top_p": 1.0, "seed": None, "system_prompt": None,
        "no_cache": False, "ocr": False, "model": None,
    }  # fmt: skip
    return argparse.Namespace(**{**values, **changes})


def test_the_answer_goes_to_stdout_and_progress_to_stderr(settings, book_path, capsys):
    assert run_ask(settings, arguments([book_path], json=True)) == 0
    report = json.loads(capsys.readouterr().out)
    assert run_ask(settings, arguments([book_path])) == 0
    shown = capsys.readouterr()
    assert shown.out == report["answer"] + "\n"
    assert "Read harbour.txt" in shown.err and "Prefill" in shown.err and "tokens/s" in shown.err


def test_the_model_chosen_last_in_the_page_answers_unless_another_is_named(settings, book_path, tmp_path, capsys):
    ModelChoices(ModelChoice(settings.model)).write(tmp_path)
    unset = replace(settings, model=str(tmp_path / "no-such-model"))
    run_ask(unset, arguments([book_path], json=True))
    assert json.loads(capsys.readouterr().out)["model"] == Path(settings.model).name
    with pytest.raises(UserFacingError, match="no-such-model"):
        run_ask(unset, arguments([book_path], model=unset.model))


def test_the_embedded_model_is_called_a_demonstration_once(settings, book_path, tmp_path, capsys, monkeypatch):
    questions = tmp_path / "questions.txt"
    questions.write_text("Who kept the light?\nWhy?\n", encoding="utf-8")
    run_ask(settings, arguments([book_path], None, questions=questions))
    assert "demonstration" not in capsys.readouterr().err
    # As if the small model of the test were the embedded one.
    monkeypatch.setattr(AppSettings, "model", settings.model)
    run_ask(settings, arguments([book_path], None, questions=questions))
    shown = capsys.readouterr()
    assert shown.err.count("demonstration model, often wrong. For a larger one: --model Qwen/Qwen3-4B") == 1
    assert "demonstration" not in shown.out


def test_json_is_one_object_with_exactly_the_documented_keys(settings, book_path, capsys):
    run_ask(settings, arguments([book_path], json=True))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    report = json.loads(lines[0])
    assert list(report) == REPORT_KEYS
    assert set(report["document"]) == {"pages", "tokens", "tokens_in_context"}
    assert all(
        set(page) == {"document", "document_id", "page_label", "page_index", "share", "read_score"}
        for page in report["pages_read"]
    )
    assert report["reused_tokens"] == 0


def test_pages_without_text_are_named(settings, book_path, capsys, monkeypatch):
    document = replace(read_document(book_path), picture_pages=("2", "iv"), unreadable_pages=("9",))
    monkeypatch.setattr("app.library.library.read_document", lambda *arguments, **options: document)
    run_ask(settings, arguments([book_path], json=True))
    shown = capsys.readouterr()
    assert "In harbour.txt, 2 pages are pictures: their text cannot be read (pages 2 and iv)." in shown.err
    assert "In harbour.txt, 1 page unreadable (page 9)." in shown.err
    report = json.loads(shown.out)["document"]
    assert report["picture_pages"] == [{"document": "harbour.txt", "page_label": label} for label in ("2", "iv")]
    assert report["unreadable_pages"] == [{"document": "harbour.txt", "page_label": "9"}]


def test_the_same_content_twice_is_told(settings, book_path, capsys):
    twin = book_path.with_name("twin.txt")
    twin.write_bytes(book_path.read_bytes())
    run_ask(settings, arguments([book_path, twin, book_path], json=True))
    shown = capsys.readouterr()
    for name in ("twin.txt", "harbour.txt"):
        assert f"{name} has the same content as harbour.txt and was not added again." in shown.err
    assert json.loads(shown.out)["document"]["pages"] == 1


def test_the_second_time_a_document_comes_from_the_disk_unless_nothing_is_kept(settings, book_path, capsys):
    reports = []
    for no_cache in (True, False, False, True):
        assert run_ask(settings, arguments([book_path], json=True, no_cache=no_cache)) == 0
        shown = capsys.readouterr()
        reports.append(json.loads(shown.out))
        assert ("from the disk" in shown.err) == (len(reports) == 3)
    assert [report["restored_tokens"] > 0 for report in reports] == [False, False, True, False]
    assert reports[2]["restored_tokens"] == reports[2]["reused_tokens"] and reports[2]["restored_bytes"] > 0
    # Restored pages are those that were computed: the same greedy answer.
    assert len({report["answer"] for report in reports}) == 1


def test_beside_a_server_its_library_is_read_and_left_alone(settings, book_path, capsys):
    server = Assistant(settings)
    try:
        run_ask(settings, arguments([book_path], json=True))
        assert json.loads(capsys.readouterr().out)["document"]["pages"] == 1
        assert server.library.entries() == []
    finally:
        server.close()


def test_a_document_that_the_library_could_not_open_is_opened_with_its_password(settings, tmp_path, capsys):
    pypdf = pytest.importorskip("pypdf")
    writer = pypdf.PdfWriter(Path(__file__).parents[2] / "assets" / "books" / "the-happy-prince.pdf")
    writer.encrypt("sesame", algorithm="RC4-128")
    path = tmp_path / "locked.pdf"
    writer.write(path)
    for password in (None, "wrong"):
        with pytest.raises(UserFacingError, match=r"locked\.pdf"):
            run_ask(settings, arguments([path], password=password))
    run_ask(settings, arguments([path], password="sesame", json=True))
    assert json.loads(capsys.readouterr().out)["document"]["tokens_in_context"] > 0
    # The text is kept, and the password is not needed again.
    run_ask(settings, arguments([path], json=True))


def test_questions_of_a_file_share_a_session(settings, book_path, tmp_path, capsys):
    questions = tmp_path / "questions.txt"
    questions.write_text("\ufeffWho kept the light?\n\n  Why?  \nWhen?\n", encoding="utf-8")
    run_ask(settings, arguments([book_path], None, questions=questions, json=True))
    reports = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(reports) == 3
    for last, report in zip(reports, reports[1:], strict=False):
        said = last["prompt_tokens"] + last["decode_tokens"]
        assert report["reused_tokens"] >= said - 1
        assert report["prompt_tokens"] - report["reused_tokens"] < 40


def test_a_model_that_says_nothing_is_told(settings, book_path, capsys, monkeypatch):
    monkeypatch.setattr(LoadedModel, "stop_token_ids", tuple(range(512)))
    assert run_ask(settings, arguments([book_path])) == 0
    shown = capsys.readouterr()
    assert shown.out == "\n" and "ended its answer before its first word" in shown.err


def test_a_document_longer_than_the_window_says_what_was_read(settings, tmp_path, capsys):
    pytest.importorskip("llama_index.retrievers.bm25")
    path = tmp_path / "long.txt"
    path.write_text("The boats came home one after the other. Nobody knew the keeper. " * 200)
    run_ask(settings, arguments([path], json=True))
    report = json.loads(capsys.readouterr().out)
    assert list(report) == [*REPORT_KEYS, "context"]
    context = report["context"]
    assert list(context) == ["mode", "pages", "passages", "found_words", "missing_words", "added"]
    assert context["mode"] == "passages" and context["passages"] >= len(context["pages"]) > 0
    assert (context["found_words"], context["missing_words"]) == ([], ["kept", "light"])
    assert report["document"]["tokens_in_context"] < report["document"]["tokens"]
    run_ask(settings, arguments([path], "Is the keeper of Zanzibar known?"))
    shown = capsys.readouterr().err
    assert "longer than the window" in shown and "has keeper, but not zanzibar, known" in shown
    assert "read most" not in shown
    run_ask(settings, arguments([path], "Wo liegt der Leuchtturm?"))
    assert "none of the question's words occur in the document, so its beginning was read" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "\n  \n"])
def test_a_file_without_questions_is_refused(settings, tmp_path, content):
    path = tmp_path / "questions.txt"
    path.write_text(content)
    with pytest.raises(UserFacingError, match="no questions"):
        run_ask(settings, arguments([], None, questions=path))
    with pytest.raises(UserFacingError, match="cannot be read"):
        run_ask(settings, arguments([], None, questions=tmp_path / "missing.txt"))


def test_a_wrong_setting_is_told_before_anything_is_read(settings, tmp_path):
    with pytest.raises(UserFacingError, match="temperature"):
        run_ask(settings, arguments([tmp_path / "missing.txt"], temperature=float("nan")))


def test_a_missing_document_is_named(settings, tmp_path):
    with pytest.raises(UserFacingError, match=r"missing\.txt"):
        run_ask(settings, arguments([tmp_path / "missing.txt"]))


def test_progress_writes_over_itself_on_a_terminal_and_rarely_in_a_log():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stream, expected in ((Terminal(), "\ra\x1b[K\rb\x1b[K\rc\x1b[K\n"), (io.StringIO(), "a\nc\n")):
        progress = ProgressLine(stream)
        for text, last in (("a", False), ("b", False), ("c", True)):
            progress.show(text, last=last)
        assert stream.getvalue() == expected


@pytest.mark.slow
def test_a_text_file_needs_no_page_or_document_library(tiny_model_folder, book_path, tmp_path):
    program = (
        "import sys\n"
        "for name in ('gradio', 'fastapi', 'llama_index', 'pypdf', 'bs4', 'gguf', 'platformdirs'):\n"
        "    sys.modules[name] = None\n"
        "from app.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", program, "ask", str(book_path), "Who?", "--json", "--max-new-tokens", "4"]
    command += ["--model", str(tiny_model_folder), "--data-dir", str(tmp_path), "--device", "cpu"]
    root = Path(__file__).parents[2]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["decode_tokens"] == 4


@pytest.mark.slow
def test_the_embedded_model_answers_in_quest_mode(embedded_data_dir, tmp_path, capsys):
    path = tmp_path / "harbour.txt"
    filler = "The boats came home one after the other, and the harbour lay still in the evening. " * 40
    path.write_text(f"{filler}\n\nThe name of the lighthouse keeper is Magdalena.\n\n{filler}")
    questions = tmp_path / "questions.txt"
    questions.write_text("What is the name of the lighthouse keeper?\nWhat came home?\n")
    settings = AppSettings(data_dir=embedded_data_dir, device="cpu", attention="quest", token_budget=512)
    run_ask(settings, arguments([path], None, questions=questions, json=True, max_new_tokens=20))
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first["attention"] == "quest" and "Magdalena" in first["answer"]
    assert first["document"]["tokens_in_context"] == first["document"]["tokens"] > 1200
    assert second["reused_tokens"] >= first["prompt_tokens"] + first["decode_tokens"] - 1
    assert second["prompt_tokens"] - second["reused_tokens"] < 40
    assert second["answer"]
