"""A misbehaving server, and an assistant over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.app.remote.misbehaving_server import MisbehavingServer


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    server = MisbehavingServer()
    yield server
    server.close()


@pytest.fixture
def open_remote(tmp_path, server) -> Iterator[Callable[..., Any]]:
    """Return `open_remote(**settings)`: an assistant over the server."""
    from app.chat.assistant import Assistant
    from app.settings import AppSettings

    opened = []

    def open_one(**settings: Any) -> Assistant:
        assistant = Assistant(AppSettings(data_dir=tmp_path / "data", **({"engine_url": server.url} | settings)))
        opened.append(assistant)
        return assistant

    yield open_one
    for assistant in opened:
        assistant.close()
