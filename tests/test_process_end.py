"""`launch.py` and the server that it starts end together, told to or killed, while the model loads and a file comes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 120

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="kills with POSIX signals")]


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def launcher(port, tmp_path) -> Iterator[subprocess.Popen]:
    """A running `launch.py` whose server is open."""
    command = [sys.executable, str(ROOT / "launch.py"), "--skip-install", "--no-browser", "--offline"]
    with (tmp_path / "output.txt").open("w") as output:
        launcher = subprocess.Popen(
            [*command, "--port", str(port), "--data-dir", str(tmp_path / "data")],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    deadline = time.monotonic() + PATIENCE_S
    while not is_open(port):
        assert launcher.poll() is None and time.monotonic() < deadline, (tmp_path / "output.txt").read_text()
        time.sleep(0.1)
    yield launcher
    for process in [*psutil.Process(launcher.pid).children(), launcher] if launcher.poll() is None else []:
        process.kill()
    launcher.wait()


def is_open(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5):
            return True
    except OSError:
        return False


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGKILL])
def test_the_launcher_and_its_server_end_together(launcher, port, told):
    (server,) = psutil.Process(launcher.pid).children()
    head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Length: 1000\r\n"
    body = '--b\r\nContent-Disposition: form-data; name="files"; filename="half.txt"\r\n\r\nhalf'
    with socket.create_connection(("127.0.0.1", port)) as upload:
        upload.sendall(f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n{body}".encode())
        assert is_open(port)
        launcher.send_signal(told)
        assert launcher.wait(PATIENCE_S) in (-told, 128 + told)
        _, alive = psutil.wait_procs([server], timeout=20)
        assert alive == []
    assert not is_open(port)
