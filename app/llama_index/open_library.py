"""The model and the library of a data folder, opened for a program of llama-index, and closed again.

A page that is open meanwhile keeps its data folder: it is read here, and what is added is not kept then.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from app.chat.assistant import Assistant
from app.errors import UserFacingError
from app.flags import add_flags
from app.library.library_entry import LibraryEntry
from app.llama_index.library_reader import LibraryReader
from app.llama_index.library_retriever import DEFAULT_PASSAGES, LibraryRetriever
from app.llama_index.quest_llm import QuestLLM
from app.settings import AppSettings, set_library_defaults, settings_from


class OpenLibrary:
    """A library with its model; a context manager.

    Args:
        assistant: whose they are; closed with this.
        llm: of that assistant.

    Attributes:
        assistant: as given.
        llm: the model.
        reader: the documents' texts.
    """

    def __init__(self, assistant: Assistant, llm: QuestLLM) -> None:
        self.assistant = assistant
        self.llm = llm
        self.reader = LibraryReader(assistant.library)

    def __enter__(self) -> OpenLibrary:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def add(self, path: str | Path, password: str | None = None) -> LibraryEntry:
        """Add a document and wait for its text; the same bytes are one document, and read once.

        Args:
            path: the file.
            password: of an encrypted document.

        Raises:
            UserFacingError: it cannot be read, or cannot be kept.
        """
        library = self.assistant.library
        entry = library.wait(library.add(Path(path), password=password).document_id)
        if entry.state != "read":
            raise UserFacingError(entry.message or f"{entry.name} is not read yet.")
        return entry

    def retriever(
        self, document_ids: Sequence[str] | None = None, similarity_top_k: int = DEFAULT_PASSAGES
    ) -> LibraryRetriever:
        """Search over documents; see `LibraryRetriever`.

        Raises:
            UserFacingError: as there.
        """
        return LibraryRetriever(self.assistant.library, document_ids, similarity_top_k)

    def close(self) -> None:
        """Stop what runs, and let the model and the data folder go; further calls do nothing."""
        self.assistant.close()


def open_library(
    model: str | None = None,
    data_dir: str | Path | None = None,
    keep: bool = True,
    settings: AppSettings | None = None,
    **fields: Any,
) -> OpenLibrary:
    """Open the library of a data folder, and begin to load a model.

    Sets what libraries do on their own as the app does (no telemetry), where the environment does not.

    Args:
        model: as `--model` takes it; None for the one that was chosen last in the page, else the embedded model.
        data_dir: None for the app's own.
        keep: without it documents, and what the model has read, are in a temporary folder that goes at the end.
        settings: all other settings; None takes the app's, with what its environment variables say.
        fields: settings of the LLM: temperature, max_tokens, seed and so on; see `QuestLLM`.

    Raises:
        UserFacingError: a setting has a wrong value, or the data folder cannot be used. That the model cannot be loaded
            is raised by the first call of it.
    """
    remembers_model = False
    if settings is None:
        parser = argparse.ArgumentParser()
        add_flags(parser)
        parsed = parser.parse_args([])
        settings, remembers_model = settings_from(parsed), parsed.model is None and model is None
    changes: dict[str, Any] = {"model": model} if model is not None else {}
    if data_dir is not None:
        changes["data_dir"] = Path(data_dir).expanduser().resolve()
    settings = replace(settings, **changes)
    set_library_defaults(settings.offline)
    assistant = Assistant(settings, keep=keep, beside_another=True, remembers_model=remembers_model)
    try:
        llm = QuestLLM(assistant, **fields)
    except BaseException:
        assistant.close()
        raise
    assistant.start_loading()
    return OpenLibrary(assistant, llm)
