"""The ways in which reading a document can fail, one class each, so that a caller can react (ask for a password).

The sentences themselves are written where the failure is noticed. The classes cross the process boundary by name.
"""

from app.errors import UserFacingError


class DocumentError(UserFacingError):
    """A document cannot be read. Base of all others here; itself: missing, a folder, no permission."""


class PasswordRequired(DocumentError):
    """The document is encrypted and no password was given."""


class WrongPassword(DocumentError):
    """The document is encrypted and the given password does not open it."""


class NoTextError(DocumentError):
    """The document has pages but no text: a scan, or pictures only."""


class EmptyDocumentError(DocumentError):
    """The document holds nothing at all: zero bytes, only blanks, or no pages."""


class DamagedDocumentError(DocumentError):
    """The file is broken, or not what its name says."""


class UnsupportedFormatError(DocumentError):
    """The file is in a format that is not read here, or is protected against reading."""


class ReadLimitExceeded(DocumentError):
    """Reading would take, or took, more time, memory or pages than `ReadLimits` allows."""


# What the reader process may send back. Anything else that it sends is taken as a damaged document.
BY_NAME: dict[str, type[DocumentError]] = {
    error_class.__name__: error_class
    for error_class in (
        DocumentError,
        PasswordRequired,
        WrongPassword,
        NoTextError,
        EmptyDocumentError,
        DamagedDocumentError,
        UnsupportedFormatError,
        ReadLimitExceeded,
    )
}
