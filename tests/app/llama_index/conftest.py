"""The embedded model and a library with two documents, opened for llama-index, and no network."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from app.library.sample_books import SAMPLE_BOOKS
from app.llama_index import OpenLibrary, open_library
from app.settings import AppSettings
from quest_core.model.model_source import embedded_model_path


# Of each module: in folders that are no packages, pytest ends what belongs to a package with the whole run.
@pytest.fixture(scope="module", autouse=True)
def no_network() -> Iterator[None]:
    """llama-index looks for OpenAI's models, and for tokenizers on the network, wherever none are given."""

    def refuse(*arguments, **options):
        raise AssertionError(f"the network was asked: {arguments}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", refuse)
        patch.setattr(socket.socket, "connect", refuse)
        patch.delenv("OPENAI_API_KEY", raising=False)
        yield


@pytest.fixture(scope="session")
def quest(embedded_data_dir, tmp_path_factory) -> Iterator[OpenLibrary]:
    """Greedy answers of eight tokens; the library has the sample PDF and a short text.

    In float32, where a prompt that is in the cache and one that is not give the same logits but for the last bits.
    """
    if embedded_model_path() is None:
        pytest.skip("the embedded model's wheel is not installed (requirements-model.txt)")
    note = tmp_path_factory.mktemp("notes") / "harbour.txt"
    note.write_text("The lighthouse keeper is called Ingrid. She keeps a cormorant.", encoding="utf-8")
    settings = AppSettings(data_dir=embedded_data_dir, dtype="float32")
    with open_library(settings=settings, keep=False, temperature=0.0, max_tokens=8) as quest:
        quest.add(SAMPLE_BOOKS[0].path)
        quest.add(note)
        yield quest
