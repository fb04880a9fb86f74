"""PDF through pypdf: every page's text under the PDF's own page label.

Pages fail one by one: pypdf raises a dozen kinds of exceptions on malformed files, and one bad page must not cost the
book. What pictures show is not read: a page that is nothing else is marked, and a scan without a text layer is refused
with advice.
"""

from collections.abc import Iterator
from pathlib import Path

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
from app.library.formats.pdf_drawing import shows_picture
from app.library.formats.text_cleaning import clean_characters, clean_typeset_page
from app.library.limits import ReadLimits

# A long book of which less than this share of pages has text is a scan with a typed cover or stamps.
_SCAN_PAGES = 20
_SCAN_TEXT_SHARE = 0.05
_LABEL_CHARACTERS = 30


def read_pages(path: Path, password: str | None, limits: ReadLimits) -> Iterator[ExtractedPage]:
    """Read a PDF, a page at a time.

    Args:
        path: the file.
        password: opens an encrypted file (user or owner password); ignored for others.
        limits: the number of pages is held against it before any is read.

    Yields:
        All pages in order; those that fail with `readable=False`, those that show something but no text with
        `is_picture=True`.

    Raises:
        PasswordRequired, WrongPassword, UnsupportedFormatError: encrypted.
        DamagedDocumentError: not one page can be read.
        NoTextError: a scan. EmptyDocumentError: no pages. ReadLimitExceeded: too many pages, or too little memory.
    """
    with path.open("rb") as file:
        reader, total = _open(path, file, password)
        if total > limits.document_pages:
            raise ReadLimitExceeded(
                f'"{path.name}" has {total:,} pages; at most {limits.document_pages:,} are read. Split it into parts.'
            )
        labels = _page_labels(reader, total)
        failures: list[BaseException] = []
        pages_with_text = 0
        for index in range(total):
            text, has_text, is_picture, readable = "", False, False, True
            try:
                page = reader.pages[index]
                text = clean_typeset_page(page.extract_text(), labels[index].lower(), str(index + 1))
                has_text = any(character.isalnum() for character in text)
                is_picture = not has_text and shows_picture(page)
            except Exception as error:
                failures.append(error)
                readable = False
            pages_with_text += has_text
            yield ExtractedPage(labels[index], text, index + 1, total, readable, is_picture)
    _check_outcome(path, total, pages_with_text, failures)


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


def _check_outcome(path: Path, total: int, pages_with_text: int, failures: list[BaseException]) -> None:
    if len(failures) == total:
        memory_error = next((error for error in failures if isinstance(error, MemoryError)), None)
        raise memory_error or _failure(path, failures[0])
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
