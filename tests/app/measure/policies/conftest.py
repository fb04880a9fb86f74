"""The engine's tiny model, and sessions that attend by a policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from app.measure.policies import POLICIES
from app.measure.policies.rivals import policy_method
from quest_core.config import EngineConfig
from quest_core.engine import Engine
from tests.quest_core.conftest import generate, never, prompt, tiny_folder

__all__ = ["generate", "never", "prompt", "tiny_folder"]


@pytest.fixture(scope="module")
def rival_engine(tiny_folder) -> Iterator[Engine]:
    """The tiny model with bounds of pages of 8."""
    config = EngineConfig(device="cpu", dtype="float32", page_size=8, selection="quest", prefill_chunk_tokens=33)
    engine = Engine.load(str(tiny_folder), config)
    yield engine
    engine.close()


@pytest.fixture
def open_rival(rival_engine) -> Iterator[Callable[[str], SimpleNamespace]]:
    """Makes a session of a policy with its `method`; every page that they or their forks hold is given back."""

    def open_one(policy: str) -> SimpleNamespace:
        assert policy in POLICIES
        method = policy_method(rival_engine, policy)
        return SimpleNamespace(method=method, session=rival_engine.new_session(method))

    before = rival_engine.memory()["free_pages"]
    yield open_one
    for session in rival_engine.sessions:
        session.close()
    assert rival_engine.memory()["free_pages"] == before


@pytest.fixture
def open_session(open_rival):
    """Makes a session of a policy."""
    return lambda policy: open_rival(policy).session
