"""PDFs made for the viewer's tests, and viewers over documents that are in no library."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from app.errors import UserFacingError
from app.library import Document, DocumentPage
from app.viewer.document_viewer import DocumentViewer
from app.viewer.render_pool import RenderPool

pypdf = pytest.importorskip("pypdf")
pytest.importorskip("pypdfium2")


class Shelf:
    """Stands for the library: documents by their id."""

    def __init__(self) -> None:
        self._documents: dict[str, Document] = {}

    def add(self, path: Path, *texts: str, **fields) -> str:
        """Put a file there whose pages have these texts; returns its id."""
        document_id = f"{len(self._documents):032x}"
        pages = tuple(DocumentPage(index, str(index + 1), text) for index, text in enumerate(texts))
        self._documents[document_id] = Document(document_id, path.name, path, pages, **fields)
        return document_id

    def document(self, document_id: str) -> Document:
        """One of them."""
        if document_id not in self._documents:
            raise UserFacingError("It is not on the shelf.")
        return self._documents[document_id]


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def pool() -> Iterator[RenderPool]:
    pool = RenderPool()
    yield pool
    pool.close()


@pytest.fixture
def viewer(shelf: Shelf, pool: RenderPool) -> DocumentViewer:
    return DocumentViewer(shelf, pool)


@pytest.fixture
def make_pdf(tmp_path: Path) -> Callable[..., Path]:
    """Return `make_pdf(contents, size=(420, 595), rotate=0, name="made.pdf", **encryption)`.

    `contents` are the drawing operations of each page, or a sequence of lines to be written one below the other.
    """
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    def make(
        contents: Sequence[str | Sequence[str]],
        size: tuple[float, float] = (420, 595),
        rotate: int = 0,
        name: str = "made.pdf",
        **encryption: str,
    ) -> Path:
        writer = pypdf.PdfWriter()
        font = DictionaryObject(
            {
                NameObject("/Type"): NameObject("/Font"),
                NameObject("/Subtype"): NameObject("/Type1"),
                NameObject("/BaseFont"): NameObject("/Helvetica"),
            }
        )
        for content in contents:
            page = writer.add_blank_page(*size)
            if not isinstance(content, str):
                shown = " T* ".join(f"({line}) Tj" for line in content)
                content = f"BT /F1 11 Tf 14 TL 40 550 Td {shown} ET"
            stream = DecodedStreamObject()
            stream.set_data(content.encode("latin-1"))
            page[NameObject("/Contents")] = writer._add_object(stream)
            page[NameObject("/Resources")] = DictionaryObject(
                {NameObject("/Font"): DictionaryObject({NameObject("/F1"): font})}
            )
            if rotate:
                page.rotate(rotate)
        if encryption:
            writer.encrypt(**encryption, algorithm="AES-256")
        writer.write(tmp_path / name)
        return tmp_path / name

    return make
