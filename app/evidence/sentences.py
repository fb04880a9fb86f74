"""Cut a text into sentences, with their places: of an answer, or of a document page.

Rules, not a model, so that it works offline and in any script. A list item, a heading and a table row are sentences of
their own. A line break alone ends no sentence in running text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# A sentence never grows beyond this: text without punctuation is cut at a blank.
_LONGEST_CHARACTERS = 600

_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
# What ends a line's sentence whatever comes next: an empty line, or a line that begins an item, a heading or a row.
_LINE_END = re.compile(r"\n(?=[ \t]*(?:\n|[-*+•–—▪◦][ \t]|\(?\d{1,3}[.)][ \t]|\(?[a-zA-Z][.)][ \t]|#{1,6}[ \t]|\||>))")
_HEADING = re.compile(r"[ \t]*#{1,6}[ \t]")
# Marks of an item, a heading, a row or a quotation are no part of the sentence.
_LINE_MARK = re.compile(r"(?:[ \t]*(?:[-*+•–—▪◦]|\(?\d{1,3}[.)]|\(?[a-zA-Z][.)]|#{1,6}|>|\|)[ \t]+|\s+)+")
_CLOSING = "\"'”’»›)]】」』*_"
# The stop of a script without capitals ends a sentence always; "." only where what follows looks like a beginning.
_STOP = re.compile(rf"[。！？｡।॥؟۔።፧៕]+[{re.escape(_CLOSING)}]*|[.!?…]+[{re.escape(_CLOSING)}]*")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\[\"'“‘])(?:[A-Za-z]|Mr|Mrs|Ms|Mx|Dr|Prof|St|Sr|Jr|Hon|Rev|Col|Gen|Capt|Lt|Sgt|Gov|Sen|Rep|No|Nos|Nr|Vol|"
    r"Fig|Figs|Eq|Ch|Sec|Art|Abs|Bd|pp?|vs|cf|ca|approx|etc|e\.g|i\.e|z\.B|d\.h|u\.a|bzw|usw|vgl|al|op|ed|eds|Inc|Ltd|Co|"
    r"Corp|Mt|Ave|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec|Mme|Mlle|Sra?|Srta|Dra?|Ing|Mag|(?:[A-Za-z]\.)+[A-Za-z])\.$"
)
_LAST_WORD_CHARACTERS = 24


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence and where it stands; `ends` is False for one that was broken off."""

    text: str
    start: int
    end: int
    ends: bool = True


def split_sentences(text: str, with_code: bool = True) -> list[Sentence]:
    """The sentences of a text in order, without blanks and list marks around them.

    Args:
        text: of an answer, or of a document page.
        with_code: without, what stands between fences of code is left out.
    """
    return [
        sentence
        for start, end in ([(0, len(text))] if with_code else _blocks(text))
        for line_start, line_end in _lines(text, start, end)
        for sentence in _of_line(text, line_start, line_end)
    ]


def _blocks(text: str) -> list[tuple[int, int]]:
    """What stands between fences of code; a fence that is not closed takes all that follows it."""
    fences = [match.start() for match in _FENCE.finditer(text)]
    if not fences:
        return [(0, len(text))]
    blocks, start = [], 0
    for index, fence in enumerate(fences):
        if index % 2 == 0:
            blocks.append((start, fence))
        line_end = text.find("\n", fence)
        start = len(text) if line_end < 0 else line_end
    return blocks if len(fences) % 2 else [*blocks, (start, len(text))]


def _lines(text: str, start: int, end: int) -> list[tuple[int, int]]:
    lines = []
    for match in _LINE_END.finditer(text, start, end):
        lines += _heading_apart(text, start, match.start())
        start = match.end()
    return lines + _heading_apart(text, start, end)


def _heading_apart(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """A stretch of lines as one; of one that begins with a Markdown heading, its first line apart."""
    line_end = text.find("\n", start, end)
    if line_end < 0 or not _HEADING.match(text, start):
        return [(start, end)]
    return [(start, line_end), (line_end + 1, end)]


def _of_line(text: str, start: int, end: int) -> list[Sentence]:
    mark = _LINE_MARK.match(text, start, end)
    start = mark.end() if mark else start
    found = []
    for match in _STOP.finditer(text, start, end):
        if _ends_sentence(text, start, match, end):
            found += _pieces(text, start, match.end())
            start = match.end()
    return found + _pieces(text, start, end)


def _ends_sentence(text: str, start: int, stop: re.Match[str], end: int) -> bool:
    if stop.group()[0] not in ".…!?":
        return True
    if stop.end() < end and not text[stop.end()].isspace():
        return False
    # "Who?" she asked.
    following = text[stop.end() : min(end, stop.end() + 8)].lstrip()
    if following[:1].islower():
        return False
    if stop.group() == ".":
        return not _ABBREVIATION.search(text, max(start, stop.end() - _LAST_WORD_CHARACTERS), stop.end())
    return True


def _pieces(text: str, start: int, end: int) -> list[Sentence]:
    """The sentence between two places without the blanks around it; too long a one in pieces."""
    pieces = []
    while True:
        while start < end and text[start].isspace():
            start += 1
        while end > start and text[end - 1].isspace():
            end -= 1
        if start == end:
            return pieces
        if end - start <= _LONGEST_CHARACTERS:
            return [*pieces, Sentence(text[start:end], start, end)]
        cut = text.rfind(" ", start + _LONGEST_CHARACTERS // 2, start + _LONGEST_CHARACTERS)
        cut = cut if cut > 0 else start + _LONGEST_CHARACTERS
        pieces.append(Sentence(text[start:cut], start, cut))
        start = cut
