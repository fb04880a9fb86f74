"""A misbehaving server, and an assistant over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.app.remote.misbehaving_server import MisbehavingServer


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    server = MisbehavingServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def converted_models(tmp_path_factory) -> Path:
    """Where the embedded model, whose tokenizer plans prompts, is converted once for all tests."""
    return tmp_path_factory.mktemp("converted-models")


@pytest.fixture
def data_dir(tmp_path, converted_models) -> Path:
    """A data folder of the test's own."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "models").symlink_to(converted_models)
    return folder


@pytest.fixture
def open_remote(data_dir, server) -> Iterator[Callable[..., Any]]:
    """Return `open_remote(**settings)`: an assistant over the server."""
    from app.chat.assistant import Assistant
    from app.settings import AppSettings

    opened = []

    def open_one(**settings: Any) -> Assistant:
        assistant = Assistant(AppSettings(data_dir=data_dir, **({"engine_url": server.url} | settings)))
        opened.append(assistant)
        return assistant

    yield open_one
    for assistant in opened:
        assistant.close()
