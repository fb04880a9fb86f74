"""What repeats from page to page of a PDF: running headers, footers, page numbers; and words broken by a page's end.

A header says nothing new on its second page, and it tears sentences apart. The rule errs towards keeping: a line goes
only if it stands in the same place on two pages nearby, and its words are said once in any case.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from app.library.formats.text_cleaning import join_broken_word
from app.library.pdf.lines import Line
from app.library.pdf.page import PageLayout

# Pages on either side that are compared. Books have one header on left and another on right pages.
REACH_PAGES = 4
_LEAST_REPEATS = 2
_EDGE_LINES = 3
_SAME_PLACE = 3.0  # points
_LARGEST_SIZE = 1.15
_DIGITS = re.compile(r"\d+")
_LETTERS = re.compile(r"[^\W\d_]")
# "Page 3 of 10", "- 3 -": what is left of a page number without its digits.
_NUMBER_LETTERS = 8
# Text of less than this share of the body's size at a page's end is a footnote, which may stand after a broken word.
_BODY_SHARE = 0.92
_LONGEST_KNOWN_LINE = 120


@dataclass(slots=True)
class NumberedLayout:
    """A page's layout, with what the page may print as its own number (in lower case)."""

    index: int
    layout: PageLayout
    printed_numbers: tuple[str, ...]
    edge_lines: list[Line]


def without_running_lines(pages: Iterable[tuple[PageLayout, tuple[str, ...]]]) -> Iterator[PageLayout]:
    """Take headers, footers and page numbers off all pages, and join words that a page's end cuts.

    Args:
        pages: layout and printed numbers of every page in order. The layouts are changed in place.

    Yields:
        The layouts in the same order, each as soon as `REACH_PAGES` + 1 more have been read.
    """
    window: deque[NumberedLayout] = deque()
    known_lines: set[str] = set()
    # Of the pages in the window, those before this one are finished.
    done = 0
    waiting: PageLayout | None = None

    def finish(page: NumberedLayout) -> PageLayout:
        nearby = [other for other in window if 0 < abs(other.index - page.index) <= REACH_PAGES]
        _remove_running_lines(page, nearby, known_lines)
        return page.layout

    for index, (layout, numbers) in enumerate(pages):
        window.append(NumberedLayout(index, layout, numbers, _edge_lines(layout)))
        if index >= REACH_PAGES:
            ready = finish(next(page for page in window if page.index == done))
            done += 1
            if waiting is not None:
                _join_across(waiting, ready)
                yield waiting
            waiting = ready
        while window[0].index < done - REACH_PAGES:
            window.popleft()
    for page in [page for page in window if page.index >= done]:
        ready = finish(page)
        if waiting is not None:
            _join_across(waiting, ready)
            yield waiting
        waiting = ready
    if waiting is not None:
        yield waiting


def _edge_lines(layout: PageLayout) -> list[Line]:
    """The lines at the top and the bottom of a page that could be headers and footers."""
    lines = [line for block in layout.blocks if not block.is_table for line in block.lines]
    baselines: list[float] = []
    for baseline in sorted(line.baseline for line in lines):
        if not baselines or baseline - baselines[-1] > _SAME_PLACE:
            baselines.append(baseline)
    if not baselines:
        return []
    top = baselines[:_EDGE_LINES][-1] + _SAME_PLACE
    bottom = baselines[-_EDGE_LINES:][0] - _SAME_PLACE
    return [line for line in lines if line.baseline <= top or line.baseline >= bottom]


def _remove_running_lines(page: NumberedLayout, nearby: list[NumberedLayout], known_lines: set[str]) -> None:
    layout = page.layout
    removed: list[Line] = []
    said: list[str] = []
    for line in page.edge_lines:
        if line.size > _LARGEST_SIZE * layout.body_size and not _DIGITS.fullmatch(line.text):
            continue
        repeats = sum(
            any(_repeats(line, other, near.index - page.index) for other in near.edge_lines) for near in nearby
        )
        if repeats < _LEAST_REPEATS:
            continue
        words = _words(line.text)
        letters = len(_LETTERS.findall(line.text))
        if letters > (_NUMBER_LETTERS if _DIGITS.search(line.text) else 0) and words not in known_lines:
            said.append(words)
            layout.set_apart(line)
            continue
        removed.append(line)
    known_lines.update(said)
    known_lines.update(_words(line.text) for line in layout.lines if len(line.text) <= _LONGEST_KNOWN_LINE)
    if len(removed) < len(layout.lines):
        layout.remove(removed)
    layout.remove(_printed_numbers(page))


def _printed_numbers(page: NumberedLayout) -> list[Line]:
    """The page's own number where it stands alone at the top or the bottom."""
    lines = page.layout.lines
    if not lines:
        return []
    first = min(line.baseline for line in lines)
    last = max(line.baseline for line in lines)
    return [
        line
        for line in lines
        if (line.baseline - first < _SAME_PLACE or last - line.baseline < _SAME_PLACE)
        and line.text.strip(" -\u2013\u2014[]|.").lower() in page.printed_numbers
    ]


def _repeats(line: Line, other: Line, pages_apart: int) -> bool:
    """Whether the other page has this line in the same place, but for numbers that count with the pages."""
    if abs(line.baseline - other.baseline) > _SAME_PLACE or abs(line.size - other.size) > 0.1 * line.size:
        return False
    if line.text == other.text:
        return True
    if _DIGITS.sub("#", line.text) != _DIGITS.sub("#", other.text):
        return False
    steps = [
        int(after) - int(before)
        for before, after in zip(_DIGITS.findall(line.text), _DIGITS.findall(other.text), strict=True)
        if len(before) < 10 and len(after) < 10
    ]
    return any(steps) and all(step in (0, pages_apart) for step in steps)


def _words(text: str) -> str:
    return " ".join(_DIGITS.sub("", text).split()).strip(" -\u2013\u2014|.").casefold()


def _join_across(before: PageLayout, after: PageLayout) -> None:
    """Move the second half of a word that the end of a page cuts to the page where it begins."""
    last = next((line for line in reversed(before.lines) if line.size >= _BODY_SHARE * before.body_size), None)
    first = next((line for line in after.lines if line.size >= _BODY_SHARE * after.body_size), None)
    if last is None or first is None or abs(last.size - first.size) > 0.1 * last.size:
        return
    half, _, rest = first.text.partition(" ")
    if not half[:1].islower():
        return
    lower_text = " ".join(line.text for line in before.lines + after.lines).lower()
    joined = join_broken_word(last.text, half, lower_text)
    if joined is None:
        return
    last.text = joined
    if rest:
        first.text = rest
    else:
        after.remove([first])
