"""Names by which the server may be called, and what its guard does on its own."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

pytest.importorskip("starlette")  # comes with gradio, which a machine that only measures kernels need not have

from app.web.request_guard import RequestGuard, allowed_hosts, host_name


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost", "localhost"),
        ("LOCALHOST:7860", "localhost"),
        ("[::1]:7860", "::1"),
        ("[fe80::2]", "fe80::2"),
        ("", ""),
    ],
)
def test_host_name_leaves_the_port_out(header, name):
    assert host_name(header) == name


def test_a_server_on_one_address_is_called_by_that_alone():
    assert allowed_hosts("192.168.7.7") == {"localhost", "127.0.0.1", "::1", "192.168.7.7"}
    assert socket.gethostname().lower() not in allowed_hosts("127.0.0.1") - {"localhost"}


@pytest.mark.parametrize("bind_host", ["0.0.0.0", "::", "[::]"])
def test_a_server_on_every_address_is_called_by_the_machines_names(bind_host):
    hosts = allowed_hosts(bind_host)
    assert {"localhost", "127.0.0.1", socket.gethostname().lower()} <= hosts
    assert "evil.example" not in hosts


def test_a_foreign_websocket_is_closed_before_it_is_accepted():
    async def never(scope, receive, send):
        raise AssertionError("the guard let a foreign websocket through")

    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "websocket", "path": "/", "headers": [(b"host", b"evil.example")]}
    asyncio.run(RequestGuard(never, {"localhost"})(scope, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"host", b"evil.example")], 400),
        ([(b"host", b"localhost"), (b"origin", b"http://evil.example")], 403),
        ([(b"host", b"localhost"), (b"content-length", b"99999999")], 413),
        ([(b"host", b"localhost"), (b"transfer-encoding", b"chunked")], 413),
    ],
)
def test_refusals_below_v1_have_the_shape_that_openai_clients_read(headers, status):
    async def never(scope, receive, send):
        raise AssertionError("the guard let it through")

    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers}
    asyncio.run(RequestGuard(never, {"localhost"})(scope, None, send))
    error = json.loads(sent[1]["body"])["error"]
    assert sent[0]["status"] == status and set(error) == {"message", "type", "param", "code"} and error["message"]
