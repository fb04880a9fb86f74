"""What every format reader yields: one page of text and how far the reading has come."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ExtractedPage:
    """One page as a format reader found it.

    Attributes:
        label: the page's label.
        text: its text, cleaned; "" where there is none.
        done: how much of the document has been read with this page, in the reader's own units (pages, chapters).
        total: how much there is in the same units.
        readable: False if the page failed and its text was lost.
        is_picture: True if the page shows something but has no text that could be read.
        is_garbled: True if the page's text layer does not say which characters it shows, so that its text was left out.
        is_recognised: True if the text was recognised in a picture of the page (OCR).
        assumed_encoding: the encoding in which the whole document was read, if that is not certain.
    """

    label: str
    text: str
    done: int
    total: int
    readable: bool = True
    is_picture: bool = False
    is_garbled: bool = False
    is_recognised: bool = False
    assumed_encoding: str = ""
