"""Command lines: how they are read, and that mistakes end in one line."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from types import ModuleType

import pytest

from app import cli
from app.chat.prompt.template import ChatTokenizer
from app.errors import UserFacingError
from app.models.model_loader import ModelLoader
from app.settings import AppSettings
from app.web.free_port import ensure_port_is_free


@pytest.fixture
def asked(monkeypatch):
    """Stands in for the answer; what `ask` was called with."""
    calls = []
    module = ModuleType("app.ask")
    module.run_ask = lambda settings, arguments: calls.append((settings, arguments)) or 0
    monkeypatch.setitem(sys.modules, "app.ask", module)
    return calls


@pytest.mark.parametrize(
    "arguments",
    [
        ["a.pdf", "b.txt", "Who?", "--json", "--seed", "3"],
        ["a.pdf", "b.txt", "--json", "--seed", "3", "Who?"],
        ["--json", "a.pdf", "--seed", "3", "b.txt", "Who?"],
    ],
)
def test_the_last_word_is_the_question(asked, arguments):
    assert cli.main(["ask", *arguments]) == 0
    settings, parsed = asked[0]
    assert parsed.documents == [Path("a.pdf"), Path("b.txt")]
    assert (parsed.question, parsed.json, parsed.seed) == ("Who?", True, 3)
    assert settings.attention == "auto"


def test_a_questions_file_leaves_all_words_to_the_documents(asked):
    cli.main(["ask", "a.pdf", "b.txt", "--questions", "q.txt"])
    assert asked[0][1].documents == [Path("a.pdf"), Path("b.txt")]
    assert (asked[0][1].question, asked[0][1].questions) == (None, Path("q.txt"))


def test_no_question_is_refused(asked):
    with pytest.raises(UserFacingError, match="no question"):
        cli.main(["ask"])


def test_unknown_flags_are_refused(asked, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["ask", "a.pdf", "Who?", "--colour"])
    assert exit_.value.code == 2
    assert "--colour" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserFacingError("Do this."), 1, "quest-chat: Do this."),
        (ValueError("bad value 7"), 1, "quest-chat: bad value 7"),
        (PermissionError(13, "No permission", "out.json"), 1, "quest-chat: [Errno 13] No permission: 'out.json'"),
        (KeyboardInterrupt(), 130, "quest-chat: interrupted"),
    ],
)
def test_errors_end_in_one_line(capsys, error, code, line):
    def fail():
        raise error

    assert cli.run_cleanly(fail) == code
    assert capsys.readouterr().err.strip() == line


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ModuleNotFoundError("No module named 'gguf'", name="gguf"), "The package gguf is not installed. Run"),
        (ModuleNotFoundError("No module named 'bs4.x'", name="bs4.x"), "The package bs4 is not installed."),
        (ImportError("cannot import name 'x' from 'gradio'", name="gradio"), "gradio is missing, or not in"),
        (ImportError("Please install torch and gguf>=0.10.0\nmore"), "(Please install torch and gguf>=0.10.0). Run"),
    ],
)
def test_a_missing_package_is_named(capsys, error, sentence):
    def fail():
        raise error

    assert cli.run_cleanly(fail) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line


@pytest.mark.parametrize("name", ["app.nothing", "quest_core", "ui.layout", "kernels.gpu", "json", "_lzma"])
def test_a_module_of_our_own_that_is_missing_is_no_missing_package(name):
    def fail():
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    with pytest.raises(ModuleNotFoundError):
        cli.run_cleanly(fail)


def test_the_model_loader_names_a_missing_package(monkeypatch, tmp_path, tiny_model_folder):
    monkeypatch.setitem(sys.modules, "transformers", None)
    loader = ModelLoader(AppSettings(data_dir=tmp_path, model=str(tiny_model_folder), device="cpu"))
    with pytest.raises(UserFacingError, match="The package transformers is not installed. Run"):
        loader.wait()
    with pytest.raises(ImportError):
        ChatTokenizer(tiny_model_folder)


def test_a_port_in_use_is_named():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with pytest.raises(UserFacingError, match=rf"Port {port} is in use.*--port"):
            ensure_port_is_free("127.0.0.1", port)
    ensure_port_is_free("127.0.0.1", port)


def test_a_foreign_address_is_refused():
    with pytest.raises(UserFacingError, match="--host"):
        ensure_port_is_free("no.such.host.invalid", 7860)
