"""Many clients at once: turns, a full queue, and clients that vanish."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import urlsplit

import httpx
import pytest

from app.api.admission import Admission
from app.api.errors import ApiError
from app.api.routes import add_api_routes

CHAT = "/v1/chat/completions"


@pytest.fixture
def held_engine(assistant):
    """Keep the engine busy until the event that this returns is set."""
    done, begun = threading.Event(), threading.Event()

    def work(cancellation):
        begun.set()
        done.wait(60)
        yield

    assistant.loaded_model().engine.submit(work)
    assert begun.wait(60)
    yield done
    done.set()


def is_idle(assistant) -> bool:
    end = time.monotonic() + 30
    model = assistant.loaded_model()
    while assistant.completions.users(model) and time.monotonic() < end:
        time.sleep(0.02)
    return not assistant.completions.users(model)


def test_eight_clients_at_once(ask):
    alone = ask(max_tokens=8).choices[0].message.content

    def one(number: int) -> str:
        if number % 2:
            return "".join(
                chunk.choices[0].delta.content or "" for chunk in ask(max_tokens=8, stream=True) if chunk.choices
            )
        return ask(max_tokens=8).choices[0].message.content

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(8))) == [alone] * 8


def test_a_full_queue_says_when_to_come_back(assistant, held_engine, serve_app):
    from fastapi import FastAPI

    app = FastAPI()
    add_api_routes(app, assistant, assistant.settings, Admission(running=1, waiting=2))
    body = {"model": assistant.status().model, "max_tokens": 2, "messages": [{"role": "user", "content": "Hi"}]}
    with serve_app(app) as address, ThreadPoolExecutor(6) as pool:

        def post() -> httpx.Response:
            return httpx.post(address + CHAT, json=body, timeout=60, trust_env=False)

        asked = [pool.submit(post) for _ in range(6)]
        end = time.monotonic() + 30
        while sum(one.done() for one in asked) < 3 and time.monotonic() < end:
            time.sleep(0.02)
        refused = [one.result() for one in asked if one.done()]
        held_engine.set()
        assert [one.status_code for one in refused] == [503] * 3
        assert all(int(one.headers["retry-after"]) > 0 for one in refused)
        assert all(one.json()["error"]["code"] == "queue_full" for one in refused)
        assert sorted(one.result().status_code for one in asked) == [200] * 3 + [503] * 3


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_vanishes_in_the_midst_frees_the_engine(assistant, address, ask, stream):
    drop(address, assistant.status().model, stream, after_begun=lambda: bool(users(assistant)))
    assert is_idle(assistant)
    assert ask(max_tokens=2).usage.completion_tokens == 2


def test_a_client_that_vanishes_in_the_queue_is_not_answered(assistant, address, held_engine, ask):
    drop(address, assistant.status().model, True, after_begun=lambda: bool(users(assistant)))
    end = time.monotonic() + 30
    while not users(assistant)[0]._cancelled.is_set() and time.monotonic() < end:
        time.sleep(0.02)
    assert users(assistant)[0]._cancelled.is_set()
    held_engine.set()
    assert is_idle(assistant)


def users(assistant) -> list:
    return assistant.completions.users(assistant.loaded_model())


def drop(address: str, model: str, stream: bool, after_begun) -> None:
    """Ask for a long answer and close the connection once it has begun."""
    host = urlsplit(address)
    body = httpx.Request(
        "POST",
        address + CHAT,
        json={
            "model": model,
            "stream": stream,
            "temperature": 2,
            "max_tokens": 900,
            "messages": [{"role": "user", "content": "Tell me all."}],
        },
    )
    with socket.create_connection((host.hostname, host.port)) as connection:
        headers = "".join(f"{name}: {value}\r\n" for name, value in body.headers.items())
        connection.sendall(f"POST {CHAT} HTTP/1.1\r\n{headers}\r\n".encode() + body.content)
        end = time.monotonic() + 30
        while not after_begun() and time.monotonic() < end:
            time.sleep(0.005)
        assert after_begun(), "the answer never began"


def test_clients_take_turns():
    async def run() -> list[str]:
        admission, order = Admission(running=1, waiting=10), []

        async def ask(client: str, name: str) -> None:
            await admission.enter(client)
            order.append(name)
            await asyncio.sleep(0)
            admission.leave()

        await admission.enter("first")
        tasks = [asyncio.create_task(ask("greedy", f"greedy {number}")) for number in range(4)]
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(ask(client, client)) for client in ("modest", "shy")]
        await asyncio.sleep(0)
        assert admission.waiting == 6
        admission.leave()
        await asyncio.gather(*tasks)
        return order

    assert asyncio.run(run()) == ["greedy 0", "modest", "shy", "greedy 1", "greedy 2", "greedy 3"]


def test_who_leaves_the_queue_takes_no_place():
    async def run() -> None:
        admission = Admission(running=1, waiting=2)
        await admission.enter("a")
        waiting = [asyncio.create_task(admission.enter("b")) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(ApiError):
            await admission.enter("c")
        waiting[0].cancel()
        await asyncio.sleep(0)
        assert admission.waiting == 1
        # One whose turn has come and who leaves at that very moment hands it on.
        admission.leave()
        waiting[1].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await asyncio.wait_for(admission.enter("d"), 5)

    asyncio.run(run())


def test_while_the_model_loads_clients_are_told_to_come_back(open_assistant, serve_app):
    from fastapi import FastAPI

    assistant = open_assistant(loaded=False, keep=False)
    assistant.start_loading = lambda: None
    app = FastAPI()
    add_api_routes(app, assistant, replace(assistant.settings, no_browser=True))
    with serve_app(app) as address:
        reply = httpx.get(f"{address}/v1/models", trust_env=False)
    assert reply.status_code == 503 and int(reply.headers["retry-after"]) > 0
    assert reply.json()["error"]["code"] == "model_loading"
