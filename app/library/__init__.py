"""Documents: read them in a separate process, keep their pages, find passages in them.

`app.library.library`, where documents are kept, is imported by its name: it stands on `app.store`, which stands on the
documents here.
"""

from app.library.document import Document, DocumentPage, Passage
from app.library.document_notes import addition_notes, encoding_note, left_out_note, named_pages, page_notes
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
from app.library.formats import SUPPORTED_SUFFIXES
from app.library.library_entry import LibraryEntry, LibraryHit
from app.library.limits import ReadLimits
from app.library.passages import overview_passages, question_words, retrieve_more_passages, retrieve_passages
from app.library.reader import ReadProgress, read_document
from app.library.word_search import QuestionWords

__all__ = [
    "SUPPORTED_SUFFIXES",
    "DamagedDocumentError",
    "Document",
    "DocumentError",
    "DocumentPage",
    "EmptyDocumentError",
    "LibraryEntry",
    "LibraryHit",
    "NoTextError",
    "Passage",
    "PasswordRequired",
    "QuestionWords",
    "ReadLimitExceeded",
    "ReadLimits",
    "ReadProgress",
    "UnsupportedFormatError",
    "WrongPassword",
    "addition_notes",
    "encoding_note",
    "left_out_note",
    "named_pages",
    "overview_passages",
    "page_notes",
    "question_words",
    "read_document",
    "retrieve_more_passages",
    "retrieve_passages",
]
