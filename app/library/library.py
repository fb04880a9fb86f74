"""The library: every document that was ever added, kept by its content, its text extracted in the background.

A document is added in the time it takes to copy its file; a thread then reads one after the other, each in a process
of its own, and goes on after a restart where it was. Safe to call from any thread. Knows nothing of conversations or
models, but for how many tokens a document has for them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from app.errors import UserFacingError, explain
from app.library.document import Document
from app.library.document_files import DocumentFiles, suffix_of
from app.library.document_queue import DocumentQueue
from app.library.document_texts import DocumentTexts
from app.library.errors import DocumentError, PasswordRequired, WrongPassword
from app.library.library_entry import LibraryEntry, LibraryHit
from app.library.reader import ReadProgress, check_document, content_id, read_document
from app.library.tesseract import find_recognition
from app.store.data_folder import StorageError, StorageFull, storage_error
from app.store.database import Database
from app.store.document_store import DocumentStore
from app.store.snapshot_folder import forget_document
from app.store.stored_text import file_name_of, one_line

DOCUMENTS_FOLDER = "documents"
# How often one looks whether another process has finished a reading.
_FOREIGN_POLL_S = 0.5


class Library:
    """The documents of a data folder.

    Args:
        data_dir: the folder; its `documents` are the files.
        database: of the folder. If it is open for reading, documents that are added are read, but not kept.
        on_change: called whenever a document has changed or its reading has come further, in any thread, without a
            lock held.
        on_new_text: called with the id of a document whose text has been replaced by another, in any thread; what
            models have kept of the old one goes afterwards.
        recognition_languages: of documents whose text is recognised, as Tesseract takes them; "" for those installed.
    """

    def __init__(
        self,
        data_dir: Path,
        database: Database,
        on_change: Callable[[], None] = lambda: None,
        on_new_text: Callable[[str], None] = lambda document_id: None,
        recognition_languages: str = "",
    ) -> None:
        self._on_new_text = on_new_text
        self._recognition_languages = recognition_languages
        self._readings = DocumentQueue(self._read, "Reading the document", self._tell, before=self._settle)
        self._recognitions = DocumentQueue(self._recognise, "Recognising the text", self._tell)
        self._data_dir = data_dir
        self._files = DocumentFiles(data_dir / DOCUMENTS_FOLDER)
        self._kept = DocumentStore(database)
        self._unkept_database = Database.temporary() if database.read_only else None
        # Where documents are added.
        self._own = self._kept if self._unkept_database is None else DocumentStore(self._unkept_database)
        self._on_change = on_change
        # Held while files and rows are brought together, so that nobody sees the one without the other.
        self._adding = threading.Lock()
        self._unkept_paths: dict[str, Path] = {}
        self._texts = DocumentTexts()

    @property
    def is_kept(self) -> bool:
        """Whether documents that are added are there after a restart."""
        return self._own is self._kept

    def start(self) -> None:
        """Go on with what an ended process was reading, in a thread; further calls do nothing."""
        self._readings.start()

    def add(self, path: Path, name: str | None = None, password: str | None = None, take: bool = False) -> LibraryEntry:
        """Add a document; its text is extracted afterwards.

        The same bytes are one document: it is returned as it is, and read again only if that has failed before.

        Args:
            path: the file.
            name: what it is called, if not as the file.
            password: of an encrypted document; used for this reading and not kept.
            take: the file may go: it is moved into the library instead of copied, and is gone afterwards.

        Returns:
            The document, "reading" in general.

        Raises:
            DocumentError: the file cannot be one that is read: it is missing, empty, too large, of another format.
            StorageError: it cannot be kept; nothing of it is.
        """
        path = Path(path).absolute()
        file_name = file_name_of(name or path.name)
        try:
            check_document(path)
            document_id = content_id(path)
        except DocumentError as error:
            raise _named(error, path.name, file_name) from error
        except OSError as error:
            raise DocumentError(f'"{file_name}" cannot be opened: {error.strerror or error}.') from error
        self.start()
        with self._adding:
            entry = self.entry_or_none(document_id)
            if entry is not None and self.is_kept:
                self._replace_made_up_name(entry, file_name)
            if entry is not None and entry.state == "read":
                if self.is_kept:
                    self._replace_lost_file(path, document_id, take)
                    self._own.set_used(document_id)
            elif entry is None or document_id not in self._readings.queued():
                document_id = self._take_in(path, document_id, file_name, take)
                self._readings.put(document_id, password)
            if take and self.is_kept:
                path.unlink(missing_ok=True)
        self._tell()
        return self.entry(document_id)

    def entries(self) -> list[LibraryEntry]:
        """All documents, the one used last first."""
        self.start()
        entries = [self._with_progress(entry) for entry in self._own.entries()]
        if not self.is_kept:
            present = {entry.document_id for entry in entries}
            entries += [entry for entry in self._kept.entries() if entry.document_id not in present]
        return entries

    def entry(self, document_id: str) -> LibraryEntry:
        """One document.

        Raises:
            UserFacingError: if it is not in the library.
        """
        if (entry := self.entry_or_none(document_id)) is None:
            raise UserFacingError("This document is not in the library any more. Add it again.")
        return entry

    def entry_or_none(self, document_id: str) -> LibraryEntry | None:
        """One document; None if it is not in the library."""
        entry = self._own.entry(document_id)
        if entry is not None:
            return self._with_progress(entry)
        return None if self.is_kept else self._kept.entry(document_id)

    def document(self, document_id: str) -> Document:
        """A document's text; the same object as long as somebody holds it and it is not renamed.

        Raises:
            UserFacingError: if it is not in the library, or not read.
        """
        return self._texts.find_or_make(document_id, lambda: self._stored_document(document_id))

    def ids_with_file(self) -> set[str]:
        """The documents whose file is where it belongs; without it, there is the text, but not how pages look."""
        present = {document_id for document_id, _ in self._files.kept()}
        return present | {document_id for document_id, path in self._unkept_paths.items() if path.is_file()}

    def wait(self, document_id: str, timeout_s: float | None = None) -> LibraryEntry:
        """Wait until a document is not being read any more; returns it as it is then, or after so many seconds.

        Raises:
            UserFacingError: if it is not in the library, or is removed meanwhile.
        """
        self.start()
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            is_queued = document_id in self._readings.queued()
            entry = self.entry(document_id)
            left_s = _FOREIGN_POLL_S if end is None else min(_FOREIGN_POLL_S, end - time.monotonic())
            if entry.state != "reading" or left_s <= 0 or self._readings.closed:
                return entry
            if is_queued:
                self._readings.wait(document_id, left_s)
            else:
                time.sleep(left_s)

    def unlock(self, document_id: str, password: str) -> LibraryEntry:
        """Read a locked document with a password, which is not kept.

        Raises:
            UserFacingError: if it is not in the library.
            StorageError: if that cannot be noted.
        """
        return self._read_again(document_id, password)

    def retry(self, document_id: str) -> LibraryEntry:
        """Read a document again whose reading has failed.

        Raises:
            UserFacingError: if it is not in the library.
            StorageError: if that cannot be noted.
        """
        return self._read_again(document_id, None)

    def recognise(self, document_id: str, password: str | None = None) -> None:
        """Recognise text in pages of a PDF that have none (OCR); returns at once, and it can be used meanwhile.

        Raises:
            UserFacingError: Tesseract is not installed, there is no such document, or it is only read here.
        """
        entry = self.entry(document_id)
        if self._own.entry(document_id) is None:
            raise UserFacingError(
                f"{entry.name} is only read here: another Quest Chat uses the data folder. Recognise its text there."
            )
        if entry.state == "reading":
            raise UserFacingError(f"{entry.name} is still being read. Wait until it is.")
        find_recognition(self._recognition_languages)
        if document_id not in self._recognitions.queued():
            self._recognitions.start()
            self._recognitions.put(document_id, password)
            self._tell()

    def stop_recognising(self, document_id: str) -> None:
        """Leave a document as it was; does nothing if nobody recognises its text."""
        self._recognitions.stop(document_id)
        self._tell()

    def wait_recognised(self, document_id: str, timeout_s: float) -> LibraryEntry:
        """The document, once nobody recognises its text any more, or after so many seconds."""
        self._recognitions.wait(document_id, timeout_s)
        return self.entry(document_id)

    def rename(self, document_id: str, name: str) -> None:
        """Give a document the name that people see; what a model is told stays.

        Raises:
            UserFacingError: an empty name, or no such document.
            StorageError: if that cannot be noted.
        """
        if not (name := one_line(name)):
            raise UserFacingError("A document's name cannot be empty. Type one.")
        self.entry(document_id)
        self._store_of(document_id).rename(document_id, name)
        self._texts.forget(document_id)
        self._tell()

    def remove(self, document_id: str) -> None:
        """Remove a document with its file, its text, what search knows of it, and what models have kept of it.

        Unknown ids are ignored.

        Raises:
            StorageError: if it cannot be removed; what is left goes at the next start.
        """
        self._recognitions.stop(document_id)
        self._readings.stop(document_id)
        with self._adding:
            store = self._store_of(document_id)
            try:
                # Should the process end here, the next start takes it up again.
                store.set_state(document_id, "removing")
            except StorageFull:
                # The document's file makes room for the rest.
                self._forget_files(document_id)
                store.set_state(document_id, "removing")
            self._finish_removing(document_id)
        self._tell()

    def search(self, text: str) -> list[LibraryHit]:
        """Documents and pages that have words that begin with all words of `text`, names before pages."""
        hits = self._own.search(text)
        if not self.is_kept:
            present = set(self._own.ids())
            hits += [hit for hit in self._kept.search(text) if hit.document_id not in present]
        return hits

    def set_tokens(self, document_id: str, model: str, tokens: int, exact: bool) -> None:
        """Keep how many tokens a document has for a model; one that is only read here is not noted."""
        self._own.set_tokens(document_id, model, tokens, exact)

    def tokens(self, document_id: str, model: str) -> tuple[int, bool] | None:
        """Tokens of a document for a model, and whether they are exact; None if nobody has counted them."""
        return self._store_of(document_id).tokens(document_id, model)

    def all_tokens(self, model: str) -> dict[str, tuple[int, bool]]:
        """Of each document that was counted for a model: its tokens, and whether they are exact."""
        kept = {} if self.is_kept else self._kept.all_tokens(model)
        return kept | self._own.all_tokens(model)

    def close(self) -> None:
        """Stop reading; what is not read yet is read after the next start. Further calls do nothing."""
        self._recognitions.close()
        self._readings.close()
        if self._unkept_database is not None:
            self._unkept_database.close()

    def _stored_document(self, document_id: str) -> Document:
        entry = self.entry(document_id)
        if entry.state != "read":
            raise UserFacingError(entry.message or f"{entry.name} is still being read. Wait until it is.")
        return Document(
            document_id,
            entry.file_name,
            self._path_of(document_id),
            self._store_of(document_id).pages(document_id),
            entry.unreadable_pages,
            entry.picture_pages,
            entry.assumed_encoding,
            entry.garbled_pages,
            entry.recognised_pages,
            entry.name if entry.name != entry.file_name else "",
        )

    def _take_in(self, path: Path, document_id: str, file_name: str, take: bool) -> str:
        """Bring a file and its row in; returns the id of what was really in it."""
        suffix = suffix_of(path.name, file_name)
        try:
            file_bytes = path.stat().st_size
            if self.is_kept:
                # It may have changed since it was looked at: what was copied counts.
                document_id = self._files.keep(path, suffix, take)
        except OSError as error:
            raise storage_error(error, self._data_dir) from error
        self._unkept_paths.pop(document_id, None)
        if not self.is_kept:
            self._unkept_paths[document_id] = path
        before = self._own.entry(document_id)
        name = before.name if before is not None and before.name != before.file_name else file_name
        try:
            self._own.add(document_id, name, file_name, suffix, file_bytes)
        except StorageError:
            if self.is_kept and before is None:
                self._files.give_back(document_id, suffix, path if take else None)
            raise
        return document_id

    def _replace_made_up_name(self, entry: LibraryEntry, file_name: str) -> None:
        """Give a document whose name was lost that of the file, also in prompts."""
        made_up = _made_up_name(entry.document_id, self._own.suffix(entry.document_id) or "")
        if entry.file_name == made_up:
            name = file_name if entry.name == made_up else entry.name
            self._own.set_names(entry.document_id, name, file_name)
            self._texts.forget(entry.document_id)

    def _replace_lost_file(self, path: Path, document_id: str, take: bool) -> None:
        suffix = self._own.suffix(document_id)
        if not self._files.path(document_id, suffix).is_file():
            try:
                self._files.keep(path, suffix, take)
            except OSError as error:
                raise storage_error(error, self._data_dir) from error

    def _read_again(self, document_id: str, password: str | None) -> LibraryEntry:
        self.start()
        with self._adding:
            entry = self.entry(document_id)
            if entry.state in ("locked", "failed") and document_id not in self._readings.queued():
                if not self.is_kept and document_id not in self._unkept_paths:
                    raise UserFacingError(f"{entry.name} is only read here. Add it again to read it afresh.")
                self._own.set_state(document_id, "reading")
                self._readings.put(document_id, password)
        self._tell()
        return self.entry(document_id)

    def _finish_removing(self, document_id: str) -> None:
        self._texts.forget(document_id)
        self._forget_files(document_id)
        self._own.remove(document_id)

    def _forget_files(self, document_id: str) -> None:
        suffix = self._own.suffix(document_id)
        if suffix is None or not self.is_kept:
            return
        try:
            self._files.forget(document_id, suffix)
            forget_document(self._data_dir, document_id)
        except OSError as error:
            raise storage_error(error, self._data_dir) from error

    def _store_of(self, document_id: str) -> DocumentStore:
        return self._own if self.is_kept or self._own.suffix(document_id) is not None else self._kept

    def _with_progress(self, entry: LibraryEntry) -> LibraryEntry:
        document_id, recognitions = entry.document_id, self._recognitions
        if message := self._readings.failure(document_id):
            return replace(entry, state="failed", message=message)
        is_recognised = document_id in recognitions.queued()
        if is_recognised or recognitions.failure(document_id):
            share = (recognitions.progress(document_id) or 0.0) if is_recognised else None
            entry = replace(entry, recognition=share, recognition_message=recognitions.failure(document_id))
        if entry.state != "reading":
            return entry
        return replace(entry, progress=self._readings.progress(document_id))

    def _tell(self) -> None:
        try:
            self._on_change()
        except Exception as error:
            # Whoever listens must not end the reading, or undo what has been done.
            explain(error, "Showing the library")

    def _settle(self) -> None:
        """Finish what an ended process has begun."""
        if not self.is_kept:
            return
        with self._adding:
            self._files.clear_partial()
            for document_id in self._own.ids("removing"):
                self._finish_removing(document_id)
            known = set(self._own.ids())
            # The database was damaged, or the process ended between the file and its row: nobody knows its name.
            for document_id, suffix in self._files.kept():
                if document_id not in known and self._files.is_whole(document_id, suffix):
                    name = _made_up_name(document_id, suffix)
                    self._own.add(document_id, name, name, suffix, self._files.path(document_id, suffix).stat().st_size)
            for document_id in self._own.ids("reading"):
                if document_id not in self._readings.queued():
                    self._readings.put(document_id)
        self._tell()

    def _read(
        self,
        document_id: str,
        password: str | None,
        on_progress: Callable[[ReadProgress], None],
        stop: threading.Event,
    ) -> None:
        """Extract a document's text, and keep it or why it cannot be read."""
        entry = self._own.entry(document_id)
        if entry is None:
            return
        path = self._path_of(document_id)
        if not path.is_file():
            message = f'The file of "{entry.name}" is gone from the data folder. Remove it here, and add it again.'
            self._own.set_state(document_id, "failed", message)
            return
        try:
            document = read_document(path, password, on_progress, stop=stop)
        except (PasswordRequired, WrongPassword) as error:
            self._own.set_state(document_id, "locked", _named(error, path.name, entry.name).message)
        except DocumentError as error:
            message = _named(error, path.name, entry.name).message
            self._own.set_state(document_id, "failed", message, type(error).__name__)
        else:
            if document.document_id != document_id:
                self._own.set_state(
                    document_id, "failed", f'"{entry.name}" has changed on the disk. Remove it, and add it again.'
                )
            else:
                self._own.set_read(document_id, document)

    def _recognise(
        self,
        document_id: str,
        password: str | None,
        on_progress: Callable[[ReadProgress], None],
        stop: threading.Event,
    ) -> None:
        """Replace a document's text by one that is recognised where there was none."""
        entry, path = self.entry(document_id), self._path_of(document_id)
        if not path.is_file():
            raise UserFacingError(f'The file of "{entry.name}" is gone from the data folder. Add it again.')
        recognition = find_recognition(self._recognition_languages)
        try:
            document = read_document(path, password, on_progress, stop=stop, recognition=recognition)
        except (PasswordRequired, WrongPassword) as error:
            raise UserFacingError(
                f'"{entry.name}" is protected with a password. Save it without one, and add that, to have its text '
                "recognised."
            ) from error
        except DocumentError as error:
            raise _named(error, path.name, entry.name) from error
        if document.document_id != document_id:
            raise UserFacingError(f'"{entry.name}" has changed on the disk. Remove it, and add it again.')
        if not document.recognised_pages:
            raise UserFacingError(f'No text was recognised in "{entry.name}" (languages: {recognition.languages}).')
        if stop.is_set() or not self._own.replace_text(document_id, document):
            return
        self._texts.forget(document_id)
        self._on_new_text(document_id)
        if self.is_kept:
            forget_document(self._data_dir, document_id)

    def _path_of(self, document_id: str) -> Path:
        suffix = self._store_of(document_id).suffix(document_id) or ""
        return self._unkept_paths.get(document_id) or self._files.path(document_id, suffix)


def _made_up_name(document_id: str, suffix: str) -> str:
    """What a document is called of which only the file is left."""
    return f"document {document_id[:8]}{suffix}"


def _named(error: DocumentError, file_name: str, name: str) -> DocumentError:
    """The same error with the name that people know a file by."""
    return type(error)(error.message.replace(f'"{file_name}"', f'"{name}"'))
