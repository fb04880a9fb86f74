"""What all tests share: no network, no GPU where there is none, nothing in the user's own folders."""

from __future__ import annotations

import os
from pathlib import Path

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
