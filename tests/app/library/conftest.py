"""Documents built for the tests: PDFs with text, labels and passwords; and the sample book."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from app.library import Document, DocumentPage, read_document

pypdf = pytest.importorskip("pypdf")

SAMPLE_BOOK = Path(__file__).parents[3] / "assets" / "books" / "the-happy-prince.pdf"


def write_pdf(path: Path, pages: Sequence[Sequence[str]], password: str | None = None) -> Path:
    """Write a PDF with a page for each sequence of lines; an empty sequence makes a blank page."""
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    writer = pypdf.PdfWriter()
    font = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Font"),
            NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Helvetica"),
        }
    )
    for lines in pages:
        page = writer.add_blank_page(width=420, height=595)
        shown = " T* ".join(f"({line}) Tj" for line in lines)
        content = DecodedStreamObject()
        content.set_data(f"BT /F1 11 Tf 14 TL 40 550 Td {shown} ET".encode("latin-1") if lines else b"")
        page[NameObject("/Contents")] = writer._add_object(content)
        page[NameObject("/Resources")] = DictionaryObject(
            {NameObject("/Font"): DictionaryObject({NameObject("/F1"): font})}
        )
    if password is not None:
        writer.encrypt(user_password=password, owner_password="the owner", algorithm="AES-256")
    writer.write(path)
    return path


@pytest.fixture
def make_pdf(tmp_path: Path) -> Callable[..., Path]:
    """Return `make_pdf(pages, password=None, name="made.pdf")`, which writes a PDF and returns its path."""

    def make(pages: Sequence[Sequence[str]], password: str | None = None, name: str = "made.pdf") -> Path:
        return write_pdf(tmp_path / name, pages, password)

    return make


@pytest.fixture
def make_document() -> Callable[..., Document]:
    """Return `make_document(*page_texts, name=...)`, a document that was never a file."""

    def make(*page_texts: str, name: str = "made.txt") -> Document:
        pages = tuple(DocumentPage(index, str(index + 1), text) for index, text in enumerate(page_texts))
        return Document(f"{abs(hash((name, page_texts))):016x}"[:16], name, Path(name), pages)

    return make


@pytest.fixture(scope="session")
def sample_book_path() -> Path:
    return SAMPLE_BOOK


@pytest.fixture(scope="session")
def sample_book() -> Document:
    return read_document(SAMPLE_BOOK)


@pytest.fixture
def reader_processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list]:
    """The reader processes started in the test, in a list; after the test every one of them must be gone."""
    import subprocess

    from app.library import reader

    started: list[subprocess.Popen] = []

    class RecordedPopen(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self)

    monkeypatch.setattr(reader.subprocess, "Popen", RecordedPopen)
    yield started
    for process in started:
        assert process.returncode is not None, "the reader process was not waited for"
        with pytest.raises(ProcessLookupError):
            os.kill(process.pid, 0)
