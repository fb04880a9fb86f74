"""Marks in an answer's markdown: numbers of sources behind its sentences, and sentences that have none.

Marks are characters, because Gradio lets no element of ours through its markdown: a circled number between two word
joiners, and invisible operators around a sentence without a source. `assets/js/chat/answer-markers.js` turns them into
buttons; without it they are plain numbers. What an answer itself writes can never become a mark.

A sentence may end in the middle of what markdown takes as one: a mark goes behind a link, a formula or code, before the
signs that end emphasis, and before the bar that ends a table's row.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from app.evidence.citation import Citation, UnsupportedSentence
from app.evidence.sentences import split_sentences
from ui.chat.safe_markdown import AUTOLINK, CODE_SPAN, FENCE, formulas, safe_markdown

SIGN = "\u2060"
NO_SOURCE_START = "\u2061"
NO_SOURCE_END = "\u2062"
# Keeps room for one of them while nobody knows which it will be: the text would wrap anew at the answer's end.
ROOM = "\u2063"
_OWN_CHARACTERS = re.compile("[\u2060-\u2063]")
_MOST_CIRCLED = 20
_LINK = re.compile(r"!?\[[^\[\]\n]*\]\([^()\s]*(?:\([^()\s]*\)[^()\s]*)*(?:[ \t]+\"[^\"\n]*\")?\)")
# What makes a line a list item, a quotation, a heading or a row of a table; a mark before it would make it plain text.
_LINE_START = re.compile(r"[ \t>]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)*(?:#{1,6}[ \t]+)?(?:\|[ \t]*)?")
# Lines of these alone mean something only if nothing else stands in them: rules, underlined headings, heads of tables.
_RULE_CHARACTERS = frozenset(" \t>|:=*_-")
_CLOSING = "\"'”’»)]"
# How far back an address is looked for that a mark would follow.
_ADDRESS_CHARACTERS = 300
_BARE_ADDRESS = re.compile(r"(?:https?://|www\.|\S+@)\S*$")


def marked_markdown(
    answer: str, citations: Sequence[Citation] = (), unsupported: Sequence[UnsupportedSentence] = ()
) -> str:
    """The answer as safe markdown with its marks.

    Args:
        answer: as the model wrote it.
        citations, unsupported: by sentences of it.

    Returns:
        What `safe_markdown` makes of it, the mark of each citation behind its sentence, in order.
    """
    marks: list[tuple[int, int, str]] = []
    offsets = _MarkOffsets(answer)
    ordered = sorted(enumerate(citations), key=lambda pair: (pair[1].sentence_end_char, pair[0]))
    last = 0
    for _, citation in ordered:
        # In the order of their sentences, wherever they are moved to: that is how the page finds their sources.
        last = max(last, offsets.end(citation.sentence_start_char, citation.sentence_end_char))
        marks.append((last, 1, f"{SIGN}{circled(citation.number)}{SIGN}"))
    for sentence in unsupported:
        end = offsets.end(sentence.start_char, sentence.end_char)
        start = offsets.start(sentence.start_char, end)
        if start is not None:
            marks.append((start, 2, NO_SOURCE_START))
        marks.append((end, 0, NO_SOURCE_END))
    return safe_markdown(_with_marks(answer, marks, offsets))


def with_room_for_marks(begun: str) -> str:
    """The markdown of an answer that goes on, with room for a mark behind each sentence but that which is written."""
    offsets, end = _MarkOffsets(begun), len(begun.rstrip())
    ends = {offsets.end(one.start, one.end) for one in split_sentences(begun, with_code=False) if one.end < end}
    # A table has room of its own, and code no sentences.
    ends = {offset for offset in ends if not offsets.is_fence_end(offset) and not offsets.is_in_table(offset)}
    return _with_marks(begun, [(offset, 0, ROOM) for offset in ends], offsets)


def circled(number: int) -> str:
    """A citation's number as it is shown: "①" to "⑳", then "(21)"."""
    return chr(ord("①") + number - 1) if 1 <= number <= _MOST_CIRCLED else f"({number})"


def _with_marks(answer: str, marks: list[tuple[int, int, str]], offsets: _MarkOffsets) -> str:
    parts, written = [], 0
    open_fence = offsets.open_fence
    for offset, _, mark in sorted(marks, key=lambda one: one[:2]):
        parts.append(_OWN_CHARACTERS.sub("", answer[written:offset]))
        written = offset
        if offsets.is_fence_end(offset):
            # One that was cut off would take the mark for code.
            if open_fence and offset == len(answer):
                mark, open_fence = f"\n{open_fence}\n{mark}\n\n", ""
            else:
                mark = f"\n{mark}\n\n"
        elif not offsets.is_whole_end(offset) and _BARE_ADDRESS.search(
            answer[max(0, offset - _ADDRESS_CHARACTERS) : offset]
        ):
            # The address would take the mark for its own.
            mark = f" {mark}"
        parts.append(mark)
    return "".join([*parts, _OWN_CHARACTERS.sub("", answer[written:])])


class _MarkOffsets:
    """Where marks may stand in an answer's markdown."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._fences, self.open_fence = fences(text)
        self._wholes = [match.span() for kind in (CODE_SPAN, _LINK, AUTOLINK) for match in kind.finditer(text)]
        self._wholes += [(start, end) for start, end, *_ in formulas(text)]

    def is_fence_end(self, offset: int) -> bool:
        return any(offset == end for _, end in self._fences)

    def is_in_table(self, offset: int) -> bool:
        return self._text[self._text.rfind("\n", 0, offset) + 1 : offset].lstrip(" \t>").startswith("|")

    def is_whole_end(self, offset: int) -> bool:
        return any(offset == end for _, end in self._wholes)

    def end(self, start: int, end: int) -> int:
        """For a mark behind the sentence from `start` to `end`."""
        start, end = max(0, min(start, len(self._text))), max(0, min(end, len(self._text)))
        offset = start + len(self._text[start:end].rstrip())
        while True:
            if fence := self._around(self._fences, offset, with_ends=True):
                return fence[1]
            line_start = self._text.rfind("\n", 0, offset) + 1
            line_end = self._text.find("\n", offset)
            line = self._text[line_start : line_end if line_end >= 0 else len(self._text)]
            if not line.strip() or not _RULE_CHARACTERS.issuperset(line) or not line_start:
                break
            offset = len(self._text[:line_start].rstrip())
        offset = self._behind_run(offset)
        while offset < len(self._text) and self._text[offset] in _CLOSING and not self._around(self._wholes, offset):
            offset += 1
        while whole := self._around(self._wholes, offset):
            offset = whole[1]
        if fence := self._around(self._fences, offset, with_ends=True):
            return fence[1]
        before = self._text[line_start:offset].rstrip(" \t")
        if before.endswith("|") and "|" in before[:-1]:
            offset = line_start + len(before[:-1].rstrip(" \t"))
        emphasis = re.search(r"(?<=[^\s*_~])[*_~]+$", self._text[line_start:offset])
        return line_start + emphasis.start() if emphasis else offset

    def start(self, start: int, end: int) -> int | None:
        """For a mark before the sentence that begins at `start`; None where none can stand, as inside a fence."""
        start = max(0, start)
        start += len(self._text[start:end]) - len(self._text[start:end].lstrip())
        if self._around(self._fences, start, with_ends=True):
            return None
        while whole := self._around(self._wholes, start):
            start = whole[0]
        line_start = self._text.rfind("\n", 0, start) + 1
        offset = max(start, _LINE_START.match(self._text, line_start).end())
        while offset < end and self._text[offset] in "*_~" and not self._text[offset : offset + 2].isspace():
            offset += 1
        offset = self._behind_run(offset)
        is_inside = self._around(self._wholes, offset) or self._around(self._fences, offset, with_ends=True)
        return None if is_inside or offset >= end else offset

    def _behind_run(self, offset: int) -> int:
        """Out of signs that mean something only together."""
        text = self._text
        while 0 < offset < len(text) and text[offset] in "`$" and text[offset - 1] == text[offset]:
            offset += 1
        return offset

    @staticmethod
    def _around(spans: list[tuple[int, int]], offset: int, with_ends: bool = False) -> tuple[int, int] | None:
        """The first of the spans that a mark at `offset` would stand in."""
        return next((span for span in spans if span[0] - with_ends < offset < span[1] + with_ends), None)


def fences(text: str) -> tuple[list[tuple[int, int]], str]:
    """Where fenced code begins and ends, by the rules of `safe_markdown`, and the fence that is open at the end."""
    found: list[tuple[int, int]] = []
    opened: re.Match[str] | None = None
    start = offset = 0
    for line in text.split("\n"):
        if opened is not None and ">" in opened["prefix"] and not line.lstrip().startswith(">"):
            # It has left the quotation.
            found.append((start, offset - 1))
            opened = None
        elif opened is not None:
            fence = opened["fence"]
            if re.fullmatch(rf"[ \t>]*{re.escape(fence[0])}{{{len(fence)},}}[ \t]*", line):
                found.append((start, offset + len(line)))
                opened = None
        elif opened := FENCE.match(line):
            start = offset
        offset += len(line) + 1
    if opened is None:
        return found, ""
    return [*found, (start, len(text))], opened["fence"]
