"""Read a document in a process of its own, which is killed when it takes too long or is no longer wanted.

Parsers of documents hang, swell and crash on bad files. Here they can only take down their own process: the files
come from anywhere, and this process holds the user's conversations and the model. What the formats are
belongs to `formats`.
"""

import hashlib
import json
import queue
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from app.library.document import Document, DocumentPage
from app.library.errors import (
    BY_NAME,
    DamagedDocumentError,
    DocumentError,
    EmptyDocumentError,
    ReadLimitExceeded,
    UnsupportedFormatError,
)
from app.library.formats import detect_format
from app.library.limits import MEBIBYTE, ReadLimits
from app.library.tesseract import TextRecognition
from app.limited_process import start_python

DOCUMENT_ID_DIGITS = 32
# How often one looks whether it is to end.
_STOP_POLL_S = 0.1
# Recognition takes seconds a page: as long for a document, and for one page, more than Tesseract is given.
_RECOGNITION_S = 24 * 3600.0
_RECOGNISED_PAGE_S = 120.0
# What an `ExtractedPage` says of itself that a document lists, and when it does.
_PAGE_FLAGS = {"readable": False, "is_picture": True, "is_garbled": True, "is_recognised": True}


class ReadingStopped(Exception):
    """A reading was ended by whoever had begun it."""


@dataclass(frozen=True)
class ReadProgress:
    """How far reading has come, in pages (of a PDF), chapters (of an EPUB) or sections."""

    done_pages: int
    total_pages: int


def read_document(
    path: Path,
    password: str | None = None,
    on_progress: Callable[[ReadProgress], None] | None = None,
    limits: ReadLimits | None = None,
    stop: threading.Event | None = None,
    recognition: TextRecognition | None = None,
) -> Document:
    """Read a document's text, page by page.

    Args:
        path: a file of one of `formats.SUPPORTED_NAMES`.
        password: for an encrypted PDF.
        on_progress: called after each page that was read, in the calling thread. What it raises stops the reading.
        limits: what the reading may cost; the defaults of `ReadLimits` if None. Recognition may take longer in all,
            but for each page.
        recognition: recognise text in pages of a PDF that have none (OCR); None leaves them as they are.
        stop: once set, the reading ends within a fraction of a second.

    Returns:
        The document. Pages that could not be read are in it, empty, and listed in `unreadable_pages`; so are those that
        are pictures, in `picture_pages`, and those whose text layer says nothing, in `garbled_pages`.

    Raises:
        PasswordRequired, WrongPassword, NoTextError, EmptyDocumentError, DamagedDocumentError, UnsupportedFormatError,
        ReadLimitExceeded: as their names say. DocumentError: no such file, a folder, no permission.
        The message is meant for the user and names the file.
        ReadingStopped: because of `stop`.
    """
    limits = limits or ReadLimits()
    path = Path(path).absolute()
    _check_file(path, limits)
    try:
        format_name = detect_format(path)
        document_id = content_id(path)
    except OSError as error:
        raise _cannot_be_opened(path, error) from error
    if recognition is not None:
        if format_name != "pdf":
            raise UnsupportedFormatError(f'"{path.name}" is no PDF: text is recognised in PDF pages only.')
        limits = replace(
            limits, wall_clock_s=_RECOGNITION_S, stall_s=max(limits.stall_s, _RECOGNISED_PAGE_S)
        )
    request = {
        "path": str(path),
        "format": format_name,
        "password": password,
        "limits": asdict(limits),
        "recognition": recognition and asdict(recognition),
    }
    document_pages: list[DocumentPage] = []
    flagged_pages: dict[str, list[str]] = {flag: [] for flag in _PAGE_FLAGS}
    assumed_encoding = ""
    with closing(_pages_from_process(request, path, limits, stop)) as pages:
        for page in pages:
            document_pages.append(DocumentPage(len(document_pages), page["label"], page["text"]))
            for flag, labels in flagged_pages.items():
                if page[flag] is _PAGE_FLAGS[flag]:
                    labels.append(page["label"])
            assumed_encoding = page["assumed_encoding"]
            if on_progress:
                on_progress(ReadProgress(page["done"], page["total"]))
    if not any(page.text.strip() for page in document_pages):
        raise EmptyDocumentError(f'"{path.name}" holds no text. Check that it was saved or downloaded completely.')
    return Document(
        document_id,
        path.name,
        path,
        tuple(document_pages),
        unreadable_pages=tuple(flagged_pages["readable"]),
        picture_pages=tuple(flagged_pages["is_picture"]),
        assumed_encoding=assumed_encoding,
        garbled_pages=tuple(flagged_pages["is_garbled"]),
        recognised_pages=tuple(flagged_pages["is_recognised"]),
    )


def check_document(path: Path, limits: ReadLimits | None = None) -> None:
    """Look whether a file is one that can be read, by what is quick to see: its kind, its size, its beginning.

    Raises:
        DocumentError: as `read_document` does.
    """
    path = Path(path).absolute()
    _check_file(path, limits or ReadLimits())
    try:
        detect_format(path)
    except OSError as error:
        raise _cannot_be_opened(path, error) from error


def _cannot_be_opened(path: Path, error: OSError) -> DocumentError:
    return DocumentError(f'"{path.name}" cannot be opened: {error.strerror or error}.')


def _check_file(path: Path, limits: ReadLimits) -> None:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise DocumentError(f'There is no file "{path}". Check its name and folder.') from error
    except (OSError, ValueError) as error:
        raise DocumentError(f'"{path.name}" cannot be opened: {error}.') from error
    if stat.S_ISDIR(status.st_mode):
        raise DocumentError(f'"{path.name}" is a folder. Choose the documents in it.')
    if not stat.S_ISREG(status.st_mode):
        raise DocumentError(f'"{path.name}" is not a file but a device or a pipe. Save its content to a file first.')
    if status.st_size == 0:
        raise EmptyDocumentError(f'"{path.name}" is empty. Check that it was saved or downloaded completely.')
    if status.st_size > limits.file_bytes:
        raise ReadLimitExceeded(
            f'"{path.name}" has {status.st_size / MEBIBYTE:,.1f} MiB; at most {limits.file_bytes / MEBIBYTE:,.1f} MiB '
            "are read. Split it into parts."
        )


def content_id(path: Path) -> str:
    """The id of the document that a file holds: the first 32 hexadecimal digits of the SHA-256 of its bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(MEBIBYTE):
            digest.update(block)
    return digest.hexdigest()[:DOCUMENT_ID_DIGITS]


def _pages_from_process(
    request: dict[str, Any], path: Path, limits: ReadLimits, stop: threading.Event | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the pages that a reader process sends; end the process however this generator ends."""
    end = time.monotonic() + limits.wall_clock_s
    process = _start_process(request)
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    # A thread, because no platform lets one wait for a pipe of another process with a time limit in the same way.
    pump = threading.Thread(target=_pump, args=(process, lines), name="document-lines", daemon=True)
    pump.start()
    try:
        while True:
            left_s = end - time.monotonic()
            try:
                line = _next_line(lines, max(0.0, min(left_s, limits.stall_s)), stop)
            except queue.Empty:
                took = (
                    f"found no further page in {limits.stall_s:g} seconds"
                    if limits.stall_s < left_s
                    else f"took longer than {limits.wall_clock_s:g} seconds"
                )
                raise ReadLimitExceeded(
                    f'Reading "{path.name}" {took} and was stopped. The file may be damaged; otherwise split it into '
                    "parts."
                ) from None
            if line is None:
                raise _crash(process, path, limits)
            answer = json.loads(line)
            if answer["kind"] == "done":
                return
            if answer["kind"] == "error":
                raise BY_NAME.get(answer["error"], DamagedDocumentError)(answer["message"])
            yield answer
    finally:
        process.kill()
        process.wait()
        pump.join()
        process.stdout.close()


def _next_line(
    lines: "queue.SimpleQueue[bytes | None]", timeout_s: float, stop: threading.Event | None
) -> bytes | None:
    end = time.monotonic() + timeout_s
    while True:
        if stop is not None and stop.is_set():
            raise ReadingStopped
        left_s = max(0.0, end - time.monotonic())
        try:
            return lines.get(timeout=left_s if stop is None else min(left_s, _STOP_POLL_S))
        except queue.Empty:
            if left_s <= _STOP_POLL_S:
                raise


def _start_process(request: dict[str, Any]) -> subprocess.Popen[bytes]:
    process = start_python("app.library.reader_process")
    try:
        # The password goes this way, too: arguments and environment of a process can be read by others.
        with process.stdin as stdin:
            stdin.write(json.dumps(request).encode() + b"\n")
    except BrokenPipeError:
        # It died at its start; the end of its answers says so.
        pass
    return process


def _pump(process: subprocess.Popen[bytes], lines: "queue.SimpleQueue[bytes | None]") -> None:
    for line in process.stdout:
        # A killed process leaves half a line.
        if line.endswith(b"\n"):
            lines.put(line)
    lines.put(None)


def _crash(process: subprocess.Popen[bytes], path: Path, limits: ReadLimits) -> DocumentError:
    status = process.wait()
    if status == -signal.SIGABRT:
        # Libraries in C and C++ end their process where Python raises a MemoryError.
        return ReadLimitExceeded(
            f'"{path.name}" needs more than {limits.memory_bytes >> 20:,} MiB of memory to read. It may be damaged; '
            "otherwise split it into parts."
        )
    cpu_signal = getattr(signal, "SIGXCPU", None)
    kill_signal = getattr(signal, "SIGKILL", None)
    if cpu_signal and status in (-cpu_signal, -kill_signal):
        return ReadLimitExceeded(
            f'Reading "{path.name}" was stopped: it took too much time or memory. The file may be damaged; otherwise '
            "split it into parts."
        )
    return DamagedDocumentError(
        f'"{path.name}" is damaged: its reader stopped without an answer (status {status}). Get the file again.'
    )
