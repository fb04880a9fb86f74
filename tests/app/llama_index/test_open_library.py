"""Opening a library for a program: documents, passwords, settings, another program beside it, and the end."""

from __future__ import annotations

import pytest
from pypdf import PdfReader, PdfWriter

from app.errors import UserFacingError
from app.library.sample_books import SAMPLE_BOOKS
from app.llama_index import open_library
from app.settings import AppSettings


@pytest.fixture
def settings(tiny_model_folder, tmp_path) -> AppSettings:
    return AppSettings(
        data_dir=tmp_path / "data", model=str(tiny_model_folder), device="cpu", dtype="float32", token_budget=64
    )


def test_settings_of_the_app_are_those_of_the_model(settings):
    with open_library(settings=settings, max_tokens=3, stop="the end") as quest:
        assert (quest.llm.token_budget, quest.llm.attention) == (64, settings.attention)
        assert (quest.llm.max_tokens, list(quest.llm.stop)) == (3, ["the end"])
        assert quest.llm.complete("The harbour").raw["usage"]["completion_tokens"] <= 3


def test_the_environment_sets_what_the_call_does_not(settings, monkeypatch):
    monkeypatch.setenv("QUEST_CHAT_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("QUEST_CHAT_TOKEN_BUDGET", "96")
    with open_library(settings.model) as quest:
        assert quest.assistant.settings.data_dir == settings.data_dir
        assert quest.llm.token_budget == 96


def test_a_document_with_a_password_can_be_added_with_it_later(settings, tmp_path):
    writer = PdfWriter(PdfReader(SAMPLE_BOOKS[0].path))
    writer.encrypt("swallow", algorithm="AES-256")
    path = tmp_path / "locked.pdf"
    writer.write(path)
    with open_library(settings=settings) as quest:
        with pytest.raises(UserFacingError, match="password"):
            quest.add(path)
        with pytest.raises(UserFacingError, match="password"):
            quest.add(path, password="sparrow")
        added = quest.add(path, password="swallow")
        assert quest.retriever([added.document_id]).retrieve("Where did the Swallow fly?")
        assert quest.add(path).document_id == added.document_id


def test_files_that_cannot_be_read_are_refused(settings, tmp_path):
    (tmp_path / "empty.txt").touch()
    with open_library(settings=settings) as quest:
        for name in ("missing.pdf", "empty.txt", "."):
            with pytest.raises(UserFacingError):
                quest.add(tmp_path / name)


def test_beside_another_program_its_library_is_read(settings, tmp_path):
    note = tmp_path / "note.txt"
    note.write_text("The quagga grazes behind the chapel.", encoding="utf-8")
    with open_library(settings=settings) as first:
        kept = first.add(SAMPLE_BOOKS[0].path)
        with open_library(settings=settings) as second:
            second.add(note)
            assert [node.metadata["name"] for node in second.retriever().retrieve("the quagga")] == ["note.txt"]
            assert second.reader.load_data([kept.document_id])
        assert first.reader.list_resources() == {kept.document_id: kept.name}


def test_a_wrong_setting_leaves_the_data_folder_free(settings):
    with pytest.raises(UserFacingError, match="temperature"):
        open_library(settings=settings, temperature=-1.0)
    with open_library(settings=settings) as quest:
        assert quest.add(SAMPLE_BOOKS[0].path).state == "read"


def test_what_is_used_after_the_end_says_so(settings):
    with open_library(settings=settings, max_tokens=2) as quest:
        quest.llm.complete("The harbour")
    quest.close()
    with pytest.raises(UserFacingError, match="closing"):
        quest.llm.complete("The harbour")
    with pytest.raises(UserFacingError, match="closing"):
        quest.retriever().retrieve("The harbour")
