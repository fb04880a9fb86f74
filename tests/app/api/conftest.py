"""A server without its page over the tiny model, and the official client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from app.chat.assistant import Assistant
from app.web.server import create_app

pytest.importorskip("uvicorn")
openai = pytest.importorskip("openai")


@pytest.fixture(scope="session")
def address(assistant: Assistant, serve_app: Callable[..., Any]) -> Iterator[str]:
    with serve_app(create_app(replace(assistant.settings, headless=True), assistant, None)) as address:
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
