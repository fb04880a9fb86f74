"""An answer's sources as lines for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from app.evidence.citation import Citation, EvidencePassage, UnsupportedSentence

_QUOTED_CHARACTERS = 160


class Sources(Protocol):
    """What stands beside an answer; see `app.chat.answers.answer.AnswerReport`."""

    passages_found: Sequence[EvidencePassage]
    citations: Sequence[Citation]
    unsupported: Sequence[UnsupportedSentence]


def source_lines(sources: Sources) -> list[str]:
    """A line for each passage that is cited and for each sentence without support.

    Without a citation, the passages that bear on the question take their place: where the answer may stand.
    """
    names = {one.document_id for one in (*sources.citations, *sources.passages_found)}
    lines, seen = [], set()
    for citation in sources.citations:
        if citation.number not in seen:
            seen.add(citation.number)
            place = _place(citation, len(names) > 1)
            lines.append(f"{_circled(citation.number)} {place}: {_quoted(citation.text)} ({_signals(citation)})")
    lines += [f"Not found in the documents: {_quoted(one.sentence)}" for one in sources.unsupported]
    if not sources.citations:
        lines += [
            f"About the question, {_place(passage, len(names) > 1)}: {_quoted(passage.text)}"
            for passage in sources.passages_found
        ]
    return lines


def _circled(number: int) -> str:
    return chr(0x245F + number) if number <= 20 else f"({number})"


def _place(passage: Citation | EvidencePassage, names_document: bool) -> str:
    return f"{passage.document}, p. {passage.page_label}" if names_document else f"p. {passage.page_label}"


def _quoted(text: str) -> str:
    line = " ".join(text.split())
    if len(line) > _QUOTED_CHARACTERS:
        line = line[: line.rfind(" ", 0, _QUOTED_CHARACTERS) if " " in line[:_QUOTED_CHARACTERS] else None]
        line = line[:_QUOTED_CHARACTERS] + " …"
    return f'"{line}"'


def _signals(citation: Citation) -> str:
    if citation.read_score is None:
        return "text supports it"
    return f"text supports it; read {citation.read_score:.1f}x as much as usual"
