"""A scripted library: documents with states that a test decides about, and what outlives the scripted assistant."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from app.errors import UserFacingError
from app.library.errors import DocumentError
from app.library.reader import check_document


@dataclass
class Stored:
    """What outlives an assistant: documents with the texts of their pages, and of each conversation its documents and
    all its turns by id."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    entries: dict[str, SimpleNamespace] = field(default_factory=dict)
    conversations: dict[str, SimpleNamespace] = field(default_factory=dict)


class ScriptedLibrary:
    """Documents by their content. A name with "locked" needs the password "sesame", one with "broken" cannot be read.

    Attributes:
        reads: cleared, documents that are added are being read until it is set.
    """

    def __init__(self, stored: Stored, on_change: Callable[[], None]) -> None:
        self._stored = stored
        self._on_change = on_change
        self.reads = threading.Event()
        self.reads.set()

    def add(self, path: Path, name: str | None, take: bool) -> SimpleNamespace:
        if path.suffix != ".pdf":  # these are texts here
            try:
                check_document(path)
            except DocumentError as error:
                raise UserFacingError(error.message.replace(path.name, name or path.name)) from error
        document_id = hashlib.sha256(path.read_bytes()).hexdigest()[:32]
        if document_id not in self._stored.entries:
            texts = self._stored.texts[document_id] = path.read_text(errors="replace").split("\f")
            self._stored.entries[document_id] = SimpleNamespace(
                document_id=document_id,
                name=name or path.name,
                file_name=name or path.name,
                state="reading",
                progress=0.4,
                message="",
                page_count=len(texts),
                picture_pages=(),
                unreadable_pages=(),
                garbled_pages=(),
                assumed_encoding="",
                file_bytes=path.stat().st_size,
                added_at=time.time(),
                last_used_at=time.time(),
            )
            threading.Thread(target=self._read, args=(document_id,), daemon=True).start()
            if self.reads.is_set():
                self.wait(document_id)
        if take:
            path.unlink()
        return self.entry(document_id)

    def _read(self, document_id: str, password: str | None = None) -> None:
        self.reads.wait(60)
        entry = self._stored.entries.get(document_id)
        if entry is None:
            return
        if "broken" in entry.file_name:
            entry.message, entry.state = f"{entry.file_name} is damaged.", "failed"
        elif "locked" in entry.file_name and password != "sesame":
            entry.message = "That is not its password." if password else "It is encrypted."
            entry.state = "locked"
        else:
            entry.message, entry.state, entry.progress = "", "read", None
        self._on_change()

    def wait(self, document_id: str) -> None:
        while self._stored.entries[document_id].state == "reading":
            time.sleep(0.005)

    def entries(self) -> list[SimpleNamespace]:
        return list(self._stored.entries.values())

    def entry(self, document_id: str) -> SimpleNamespace:
        if document_id not in self._stored.entries:
            raise UserFacingError("This document is not in the library any more.")
        return self._stored.entries[document_id]

    def unlock(self, document_id: str, password: str) -> None:
        self.entry(document_id).state = "reading"
        self._read(document_id, password)

    def retry(self, document_id: str) -> None:
        self.entry(document_id).state = "reading"
        self._on_change()
        self._read(document_id)

    def rename(self, document_id: str, name: str) -> None:
        self.entry(document_id).name = name
        self._on_change()
