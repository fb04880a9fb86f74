"""PDF: every page's text under the PDF's own page label.

pypdf opens and decrypts the file, and tells its page labels; pdfium finds the characters, which are put into order
here (`app.library.pdf`). Where pdfium finds nothing, pypdf's text is taken, and its errors say why there is none.
Pages fail one by one: pypdf raises a dozen kinds of exceptions on malformed files, and one bad page must not cost the
book. What pictures show is not read: a page that is nothing else is marked, and a scan without a text layer is
refused with advice.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pypdfium2
from pypdf import PasswordType, PdfReader, get_configuration
from pypdf.errors import DependencyError, LimitReachedError

from app.library.errors import (
    DamagedDocumentError,
    DocumentError,
    EmptyDocumentError,
    NoTextError,
    PasswordRequired,
    ReadLimitExceeded,
    UnsupportedFormatError,
    WrongPassword,
)
from app.library.formats.extracted_page import ExtractedPage
from app.library.formats.text_cleaning import clean_characters, clean_typeset_page
from app.library.limits import ReadLimits
from app.library.pdf.characters import open_document
from app.library.pdf.drawing import shows_picture
from app.library.pdf.garbled import is_readable
from app.library.pdf.page import PageLayout, lay_out_page
from app.library.pdf.running_lines import without_running_lines

# A long book of which less than this share of pages has text is a scan with a typed cover or stamps.
_SCAN_PAGES = 20
_SCAN_TEXT_SHARE = 0.05
_LABEL_CHARACTERS = 30


@dataclass(slots=True)
class _Found:
    """What a page gave, before pages are compared: a layout, or text that pypdf found, or an error."""

    layout: PageLayout
    text: str = ""
    is_picture: bool = False
    error: BaseException | None = None


def read_pages(path: Path, password: str | None, limits: ReadLimits) -> Iterator[ExtractedPage]:
    """Read a PDF, a page at a time.

    Args:
        path: the file.
        password: opens an encrypted file (user or owner password); ignored for others.
        limits: the number of pages is held against it before any is read.

    Yields:
        All pages in order; those that fail with `readable=False`, those that show something but no text with
        `is_picture=True`, those whose text layer is of no use with `is_garbled=True`.

    Raises:
        PasswordRequired, WrongPassword, UnsupportedFormatError: encrypted.
        DamagedDocumentError: not one page can be read.
        NoTextError: a scan, or a text layer that cannot be read. EmptyDocumentError: no pages.
        ReadLimitExceeded: too many pages, or too little memory.
    """
    with path.open("rb") as file, ExitStack() as stack:
        reader, total = _open(path, file, password)
        if total > limits.document_pages:
            raise ReadLimitExceeded(
                f'"{path.name}" has {total:,} pages; at most {limits.document_pages:,} are read. Split it into parts.'
            )
        labels = _page_labels(reader, total)
        drawn = _open_drawn(path, password, total, stack)
        # Pages are compared with those that follow, so some of what was found waits here.
        waiting: deque[_Found] = deque()

        def layouts() -> Iterator[tuple[PageLayout, tuple[str, ...]]]:
            for index in range(total):
                found = _read_page(reader, drawn, index, labels[index])
                waiting.append(found)
                yield found.layout, (labels[index].lower(), str(index + 1))

        failures: list[BaseException] = []
        pages_with_text = garbled_pages = 0
        for index, layout in enumerate(without_running_lines(layouts())):
            found = waiting.popleft()
            text = layout.text() or found.text
            has_text = any(character.isalnum() for character in text)
            if not has_text and not found.error and not layout.is_garbled:
                found.is_picture = found.is_picture or _is_picture(reader, index)
            pages_with_text += has_text
            garbled_pages += layout.is_garbled
            if found.error:
                failures.append(found.error)
            yield ExtractedPage(
                labels[index], text, index + 1, total, not found.error, found.is_picture, layout.is_garbled
            )
    _check_outcome(path, total, pages_with_text, garbled_pages, failures)


def _open_drawn(path: Path, password: str | None, total: int, stack: ExitStack) -> pypdfium2.PdfDocument | None:
    """The file in pdfium, until `stack` ends; None where pdfium cannot open it or sees other pages than pypdf."""
    try:
        document = stack.enter_context(open_document(path, password))
    except pypdfium2.PdfiumError:
        return None
    return document if len(document) == total else None


def _is_picture(reader: PdfReader, index: int) -> bool:
    """Whether a page without text of its own shows something; not if pypdf cannot tell."""
    try:
        return shows_picture(reader.pages[index])
    except MemoryError:
        raise
    except Exception:
        return False


def _read_page(reader: PdfReader, drawn: pypdfium2.PdfDocument | None, index: int, label: str) -> _Found:
    layout = PageLayout()
    if drawn is not None:
        try:
            layout = lay_out_page(drawn, index)
        except MemoryError:
            raise
        except Exception:
            # pypdf may still read it, or say why not.
            layout = PageLayout()
    if any(character.isalnum() for line in layout.lines for character in line.text):
        return _Found(layout)
    try:
        page = reader.pages[index]
        text = clean_typeset_page(page.extract_text(), label.lower(), str(index + 1))
        has_text = any(character.isalnum() for character in text)
        if layout.is_garbled:
            # pypdf knows some encodings that pdfium does not.
            if has_text and is_readable(text):
                return _Found(PageLayout(), text)
            return _Found(layout)
        return _Found(layout, text)
    except Exception as error:
        return _Found(layout, error=None if layout.is_garbled else error)


def _open(path: Path, file, password: str | None) -> tuple[PdfReader, int]:
    try:
        reader = PdfReader(file)
        if reader.is_encrypted:
            _decrypt(path, reader, password)
        total = len(reader.pages)
    except (DocumentError, MemoryError):
        raise
    except (DependencyError, NotImplementedError) as error:
        raise UnsupportedFormatError(
            f'"{path.name}" is encrypted in a way that cannot be opened here ({error}). '
            "Open it in a PDF viewer and print it to a new PDF file."
        ) from error
    except Exception as error:
        raise _failure(path, error) from error
    if total == 0:
        raise EmptyDocumentError(f'"{path.name}" has no pages. Check that it was saved or downloaded completely.')
    return reader, total


def _decrypt(path: Path, reader: PdfReader, password: str | None) -> None:
    # Most encrypted files only forbid printing or copying: their user password is empty.
    if reader.decrypt("") != PasswordType.NOT_DECRYPTED:
        return
    if not password:
        raise PasswordRequired(f'"{path.name}" is protected with a password. Enter its password to open it.')
    if reader.decrypt(password) == PasswordType.NOT_DECRYPTED:
        raise WrongPassword(f'The password does not open "{path.name}". Check capital letters and try again.')


def _page_labels(reader: PdfReader, total: int) -> list[str]:
    try:
        own = [clean_characters(label).replace("\n", " ")[:_LABEL_CHARACTERS] for label in reader.page_labels]
    except Exception:
        own = []
    numbers = [str(number) for number in range(1, total + 1)]
    return [label or number for label, number in zip(own, numbers, strict=False)] + numbers[len(own) :]


def _check_outcome(
    path: Path, total: int, pages_with_text: int, garbled_pages: int, failures: list[BaseException]
) -> None:
    if len(failures) == total:
        memory_error = next((error for error in failures if isinstance(error, MemoryError)), None)
        raise memory_error or _failure(path, failures[0])
    if pages_with_text == 0 and garbled_pages:
        raise NoTextError(
            f'"{path.name}" has a text layer that cannot be read: its fonts do not say which characters they show. '
            "Run text recognition (OCR) on it, for example with `ocrmypdf --force-ocr`, and add the result."
        )
    is_scan = total >= _SCAN_PAGES and pages_with_text < _SCAN_TEXT_SHARE * total
    if pages_with_text == 0 or is_scan:
        found = "no text" if pages_with_text == 0 else f"text on only {pages_with_text} of its {total} pages"
        raise NoTextError(
            f'"{path.name}" holds {found}: it seems to be a scan, or pictures only. '
            "Run text recognition (OCR) on it first, for example with ocrmypdf, and add the result."
        )


def _failure(path: Path, error: BaseException) -> DocumentError:
    """What to say of a file, or of all of its pages, that pypdf gave up with `error`."""
    if isinstance(error, (LimitReachedError, RecursionError)):
        return ReadLimitExceeded(
            f'"{path.name}" goes beyond what is read of one PDF page or file: {_limit(error)}. Split it into parts, or '
            "open it in a PDF viewer and print it to a new PDF file."
        )
    return DamagedDocumentError(
        f'"{path.name}" is damaged and cannot be read ({type(error).__name__}). Get the file again, or open it in a '
        "PDF viewer and print it to a new PDF file."
    )


def _limit(error: BaseException) -> str:
    reason = str(error)
    if isinstance(error, RecursionError):
        return "its parts are nested too deeply"
    if "decompressing" in reason or "output" in reason:
        return f"a part of it unpacks to more than {get_configuration().zlib_maximum_output_length / 1e6:g} MB"
    if "tokens" in reason:
        return f"a page has more than {get_configuration().stream_parsing_work_maximum_count:,} drawing operations"
    if "element count" in reason:
        return f"a list in it has more than {get_configuration().array_maximum_element_count:,} entries"
    # pypdf says which: "Maximum filter count 16 exceeded: 20."
    return f"{reason[:1].lower()}{reason[1:]}".rstrip(".!")
