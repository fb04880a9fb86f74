"""The server ends when it is told to, whatever hangs, and waits for no silent client. Real processes and sockets."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("uvicorn")  # comes with gradio, which a machine that only measures kernels need not have

import uvicorn

from app.web.http_server import TimedProtocol

ROOT = Path(__file__).resolve().parents[3]
# What the test asks for hangs, in a way that nothing but the end of the process ends.
HANGING = """
import asyncio, sys, time
import anyio.to_thread, uvicorn
from app.web.http_server import Server

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if sys.argv[1] == "shutdown":
            await asyncio.sleep(1000)
        await send({"type": "lifespan.shutdown.complete"})
    elif sys.argv[1] == "loop":
        print("hanging", flush=True)
        time.sleep(1000)
    elif sys.argv[1] == "thread":
        print("hanging", flush=True)
        await anyio.to_thread.run_sync(time.sleep, 1000)
    else:
        print("hanging", flush=True)

config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", timeout_graceful_shutdown=1)
server = Server(config, lambda: print(server.servers[0].sockets[0].getsockname()[1], flush=True))
server.run()
"""


@pytest.mark.parametrize("what", ["loop", "thread", "shutdown"])
@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_a_hanging_server_ends(what, told):
    program = f"from app.web import http_server\nhttp_server._ENDING_S = 0.5\n{HANGING}"
    server = subprocess.Popen([sys.executable, "-c", program, what], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with socket.create_connection(("127.0.0.1", int(server.stdout.readline()))) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert server.stdout.readline() == "hanging\n"
        server.send_signal(told)
        try:
            server.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.communicate()
            pytest.fail("it goes on")
    assert server.returncode in (128 + told, -told, 1)


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_what_is_to_be_done_at_the_end_is_done_whatever_signal_ends_it(told):
    program = HANGING.replace("flush=True))\nserver.run", "flush=True), lambda: print('done', flush=True))\nserver.run")
    server = subprocess.Popen([sys.executable, "-c", program, "nothing"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    server.stdout.readline()
    server.send_signal(told)
    output, _ = server.communicate(timeout=20)
    assert output == "done\n"


class ImpatientProtocol(TimedProtocol):
    """For tests that do not want to wait."""

    head_s = stall_s = 0.5


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of a server that reads a body and tells its length."""

    async def app(scope, receive, send):
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size, more = size + len(message["body"]), message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
        await send({"type": "http.response.body", "body": b"%d" % size})

    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", http=ImpatientProtocol, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"


@pytest.mark.parametrize("sent", [b"", HEAD, HEAD + b"\r\n", HEAD + b"\r\n123"])
def test_a_request_that_never_ends_is_closed(port, sent):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(sent)
        assert is_closed(connection)


def test_a_head_that_trickles_in_is_closed(port):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.settimeout(0.1)
        deadline = time.monotonic() + 20
        connection.sendall(HEAD)
        while time.monotonic() < deadline:
            try:
                connection.sendall(b"X: y\r\n")
                if connection.recv(1) == b"":
                    return
            except TimeoutError:
                continue
            except OSError:
                return
        pytest.fail("it is still open")


def test_a_slow_body_is_read_and_the_connection_goes_on(port):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        for _ in range(2):
            connection.sendall(HEAD + b"\r\n")
            for byte in b"12345":
                time.sleep(0.2)
                connection.sendall(bytes([byte]))
            answer = b""
            while not answer.endswith(b"\r\n\r\n5"):
                received = connection.recv(1000)
                assert received
                answer += received
        connection.sendall(HEAD)
        assert is_closed(connection)


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True
