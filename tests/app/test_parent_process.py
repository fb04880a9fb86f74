"""A process ends with the one that started it, also if that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from app import parent_process
from app.settings import take_launcher_pid

ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import sys, time
from app import parent_process
if sys.argv[2] == "watch":
    parent_process._ask_linux = lambda: False
parent_process.end_with_parent(int(sys.argv[1]))
print("watching", flush=True)
time.sleep(60)
"""
PARENT = """
import os, subprocess, sys, time
command = [sys.executable, "-c", sys.argv[1], str(os.getpid()), sys.argv[2]]
child = subprocess.Popen(command, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""
# Reads a pipe that nobody writes into: the reader must be stopped from outside.
READING = """
import sys, pathlib
from app.library import reader
reader._check_file = lambda path, limits: None
reader.detect_format = lambda path: "plain_text"
reader.content_id = lambda path: "0"
reader.read_document(pathlib.Path(sys.argv[1]))
"""

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills with POSIX signals")


def start(*arguments) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def ends(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("way", ["kernel", "watch"])
def test_a_child_ends_with_its_killed_parent(way):
    parent = start(PARENT, CHILD, way)
    child_pid = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    assert ends(child_pid)


def test_a_child_whose_parent_is_gone_already_ends():
    gone = start("pass")
    gone.wait()
    late = start(CHILD, gone.pid, "kernel")
    assert ends(late.pid)
    assert late.wait() == -signal.SIGTERM
    late.communicate()


def test_the_reader_ends_with_a_killed_parent(tmp_path):
    pipe = tmp_path / "pipe.txt"
    os.mkfifo(pipe)
    parent = start(READING, pipe)
    writer = open_once_it_is_read(pipe)
    (reader,) = psutil.Process(parent.pid).children()
    parent.kill()
    parent.communicate()
    assert ends(reader.pid)
    os.close(writer)


def open_once_it_is_read(pipe: Path) -> int:
    deadline = time.monotonic() + 20
    while True:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_the_launchers_pid_is_told_once():
    environment = {"QUEST_CHAT_LAUNCHER_PID": "17"}
    assert take_launcher_pid(environment) == 17
    assert take_launcher_pid(environment) is None


def test_the_own_parent_is_running():
    assert parent_process._is_running(os.getppid())
