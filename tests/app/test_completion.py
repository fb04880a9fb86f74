"""Completion scripts: they are made for each shell, and bash completes by its own."""

from __future__ import annotations

import shutil
import subprocess

import pytest

pytest.importorskip("shtab")

from app import cli
from app.completion import SHELLS, completion_script

BASH = shutil.which("bash")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_knows_all_subcommands(shell, capsys):
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    words = ("serve", "ask", "bench", "eval", "doctor", "completion", "token-budget", "listen", "headless", "verify")
    assert [word for word in words if word not in script] == []


def test_an_unknown_shell_is_refused(capsys):
    with pytest.raises(SystemExit):
        cli.main(["completion", "cmd"])
    assert "'cmd'" in capsys.readouterr().err


def test_a_key_of_the_environment_is_in_no_script(monkeypatch):
    monkeypatch.setenv("QUEST_CHAT_API_KEY", "a-key-of-my-own-choice")
    assert not any("a-key-of-my-own-choice" in completion_script(shell) for shell in SHELLS)


@pytest.fixture(scope="module")
def bash_script(tmp_path_factory):
    if BASH is None:
        pytest.skip("needs bash")
    path = tmp_path_factory.mktemp("completion") / "script.sh"
    path.write_text(completion_script("bash"))
    return path


@pytest.mark.parametrize("program", [["launch.py"], ["python", "launch.py"], ["python3", "./launch.py"]])
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["se"], {"serve"}),
        (["serve", "--head"], {"--headless"}),
        (["ask", "--attention", ""], {"quest", "dense", "auto", "exact"}),
        (["completion", "z"], {"zsh"}),
        (["bench", "ker"], {"kernels"}),
        (["ask", "boo"], {"book.txt"}),
    ],
)
def test_bash_completes(bash_script, tmp_path, program, words, offered):
    (tmp_path / "book.txt").touch()
    line = [*program, *words]
    # What bash does on a press of Tab: the function that was registered for the command fills COMPREPLY.
    name = program[0].rpartition("/")[2]
    steps = f"""
        source {bash_script}
        COMP_WORDS=({" ".join(word or "''" for word in line)})
        COMP_CWORD={len(line) - 1}
        registered=$(complete -p {name})
        [[ $registered =~ -F\\ ([^ ]+) ]] && ${{BASH_REMATCH[1]}} {name} "{line[-1]}" "{line[-2]}"
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    result = subprocess.run([BASH, "-c", steps], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert set(result.stdout.split()) == offered


def test_bash_leaves_other_programs_of_python_alone(bash_script, tmp_path):
    steps = f"source {bash_script}; COMP_WORDS=(python other.py s); COMP_CWORD=2; _quest_chat_python; "
    result = subprocess.run([BASH, "-c", steps + 'echo "${#COMPREPLY[@]}"'], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "0"
