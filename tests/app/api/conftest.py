"""A server without its page over the tiny model, and the official client."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from app.chat.assistant import Assistant
from app.web.server import create_app

uvicorn = pytest.importorskip("uvicorn")
openai = pytest.importorskip("openai")


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The address of an app, as long as it is served."""
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="session")
def address(assistant: Assistant) -> Iterator[str]:
    with served(create_app(replace(assistant.settings, headless=True), assistant, None)) as address:
        yield address


@pytest.fixture(scope="session")
def model_name(assistant: Assistant) -> str:
    return assistant.status().model


@pytest.fixture
def client(address: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
def ask(client: Any, model_name: str) -> Callable[..., Any]:
    """Return `ask(question, **options)`: a chat completion, greedy and short."""

    def ask_one(question: str = "Who kept the light?", **options: Any) -> Any:
        messages = options.pop("messages", [{"role": "user", "content": question}])
        options = {"temperature": 0, "max_tokens": 12, **options}
        return client.chat.completions.create(model=model_name, messages=messages, **options)

    return ask_one
