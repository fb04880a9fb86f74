"""What all tests share: no network, no GPU where there is none, nothing in the user's own folders."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from app.parent_process import end_with_parent
from app.settings import take_launcher_pid

HAS_GPU = torch.cuda.is_available()
if not HAS_GPU:
    # Before triton is first imported, by whatever test: it decides then whether kernels are compiled.
    os.environ["TRITON_INTERPRET"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
# Threads that sleep while they wait: on a busy machine spinning ones make small models thirty times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if (launcher_pid := take_launcher_pid()) is not None:
    end_with_parent(launcher_pid)
for name in [name for name in os.environ if name.startswith("QUEST_CHAT_")]:
    del os.environ[name]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not HAS_GPU:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))


@contextmanager
def _serve_app(app: Any, port: int = 0) -> Iterator[str]:
    uvicorn = pytest.importorskip("uvicorn")
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def serve_app() -> Callable[..., AbstractContextManager[str]]:
    """Return `serve_app(app, port=0)`: serves an app in a thread for as long as a `with` lasts; gives its address."""
    return _serve_app


@pytest.fixture(scope="session")
def embedded_data_dir(tmp_path_factory) -> Path:
    """A data folder for `--data-dir`, in which the embedded model is converted once for all tests.

    Processes that share the tests share it too: the first one converts.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = tmp_path_factory.getbasetemp().parent / "embedded-data"
        folder.mkdir(exist_ok=True)
        return folder
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def embedded_model_cache(embedded_data_dir) -> Path:
    """Where that data folder keeps converted models."""
    return embedded_data_dir / "models"
