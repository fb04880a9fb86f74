"""What stands beside an answer as its evidence: plain data for the page, the terminal and the database.

How it is found belongs to its neighbours. Characters are counted within the text of a document page, so that the
place can be shown on the page itself.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EvidencePassage:
    """A passage of a document that bears on a question, whether the model has it in context or not.

    Args:
        document, document_id: its document, as people see it named, and by id.
        page_label, page_index: its document page.
        start_char, end_char: where it stands in that page's text, end excluded.
        text: what stands there.
        text_score: how much it has of the question, from 0.0 to 1.0.
    """

    document: str
    document_id: str
    page_label: str
    page_index: int
    start_char: int
    end_char: int
    text: str
    text_score: float


@dataclass(frozen=True)
class Citation:
    """A sentence of an answer with a passage that supports it.

    Args:
        number: 1 for the first; sentences that are supported by the same passage share it.
        sentence: its text, which stands at `sentence_start_char` to `sentence_end_char` of the answer.
        document, document_id, page_label, page_index, start_char, end_char, text: the passage, as in `EvidencePassage`.
        text_score: how well the passage supports the sentence, from 0.0 to 1.0.
        read_score: how much more the model read of that page than pages at this position are read anyway: 1.0 is as
            much; None if the reads are not known.
    """

    number: int
    sentence: str
    sentence_start_char: int
    sentence_end_char: int
    document: str
    document_id: str
    page_label: str
    page_index: int
    start_char: int
    end_char: int
    text: str
    text_score: float
    read_score: float | None = None


@dataclass(frozen=True)
class UnsupportedSentence:
    """A sentence of an answer that no passage of the documents supports; its characters are those of the answer."""

    sentence: str
    start_char: int
    end_char: int
