"""Which character of one text is which of another, where both are readings of the same page.

The readings differ in spaces, hyphens, ligatures, accents, in the order of their parts, and in what they leave out.
So both are brought to bare characters; stretches that occur once in each fix the rest, which is found from its
neighbours. Linear in the length of the texts but for short gaps, whose work is bounded. Knows nothing of PDF.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher

NOT_FOUND = -1
# Lengths of the stretches that must occur once; the shorter ones are sought in what is left.
_UNIQUE_LENGTHS = (16, 8)
_LAST_UNIQUE_LENGTH = 5
# After a difference so many characters are looked over for as many that agree again.
_RESYNC_WITHIN = 24
_RESYNC_LENGTH = 5
_MOST_GAP = 300
# Comparisons of characters in short gaps, over the whole page.
_MOST_GAP_WORK = 1_000_000
# Two stretches are the same one, read differently, if so much of the longer one agrees.
_SAME_SHARE = 0.6
_SAME = {"‘": "'", "’": "'", "‚": "'", "`": "'", "´": "'", "“": '"', "”": '"', "„": '"', "·": "•", "∙": "•"}

_bare_forms: dict[str, str] = {}


def align(text: Sequence[str], characters: Sequence[str]) -> list[int]:
    """Find the characters of a text among others.

    Args:
        text: single characters, in their order.
        characters: others, in any order of their parts.

    Returns:
        For each character of `text` the index of its own in `characters`, or `NOT_FOUND`: always for spaces and
        hyphens.
    """
    left, left_sources = _bare(text)
    right, right_sources = _bare(characters)
    pairs = _Alignment(left, right).pairs()
    found = [NOT_FOUND] * len(text)
    for position, other in enumerate(pairs):
        if other != NOT_FOUND and found[left_sources[position]] == NOT_FOUND:
            found[left_sources[position]] = right_sources[other]
    return found


def _bare(characters: Sequence[str]) -> tuple[str, list[int]]:
    """The bare characters of a text, and which of its characters each comes from."""
    bare: list[str] = []
    sources: list[int] = []
    for index, character in enumerate(characters):
        form = _bare_forms.get(character)
        if form is None:
            form = _bare_forms[character] = _bare_form(character)
        for part in form:
            bare.append(part)
            sources.append(index)
    return "".join(bare), sources


def _bare_form(character: str) -> str:
    """A character without case, accent and form: "ﬁ" as "fi", "Ä" as "a"; "" for spaces, hyphens, controls."""
    parts = unicodedata.normalize("NFKD", _SAME.get(character, character)).casefold()
    return "".join(
        _SAME.get(part, part)
        for part in parts
        if unicodedata.category(part)[0] not in "MZC" and unicodedata.category(part) != "Pd"
    )


class _Alignment:
    """The search for pairs of equal characters of two strings; every character is in one pair at most."""

    def __init__(self, left: str, right: str) -> None:
        self._left = left
        self._right = right
        self._of_left = [NOT_FOUND] * len(left)
        self._taken = bytearray(len(right))
        self._gap_work = 0

    def pairs(self) -> list[int]:
        """For each character of the left string the index of its own in the right one, or `NOT_FOUND`."""
        for length in _UNIQUE_LENGTHS:
            self._pair_unique(length)
        self._follow()
        self._fill_gaps()
        self._pair_unique(_LAST_UNIQUE_LENGTH)
        return self._of_left

    def _pair_unique(self, length: int) -> None:
        """Pair stretches that occur once in what is left of each string, and from there on as far as they go."""
        right_offsets = self._unique_offsets(self._right, self._taken, length)
        left_taken = bytearray(offset != NOT_FOUND for offset in self._of_left)
        # Stretches that overlap are one: its offset, that of its other, its length.
        runs: list[list[int]] = []
        for stretch, offset in self._unique_offsets(self._left, left_taken, length).items():
            other = right_offsets.get(stretch, NOT_FOUND)
            if offset == NOT_FOUND or other == NOT_FOUND:
                continue
            if runs and offset - runs[-1][0] == other - runs[-1][1] == runs[-1][2] - length + 1:
                runs[-1][2] += 1
            else:
                runs.append([offset, other, length])
        # First all that is certain: where one part ends and another begins, both may go on with the same letters.
        paired = [(offset, other, self._extend(offset, other, 1, most)) for offset, other, most in runs]
        for offset, other, count in paired:
            if count:
                self._extend(offset - 1, other - 1, -1)
                self._extend(offset + count, other + count, 1)

    @staticmethod
    def _unique_offsets(text: str, taken: bytearray, length: int) -> dict[str, int]:
        offsets: dict[str, int] = {}
        position = 0
        while (start := taken.find(0, position)) >= 0:
            end = taken.find(1, start)
            position = len(text) if end < 0 else end
            for offset in range(start, position - length + 1):
                stretch = text[offset : offset + length]
                offsets[stretch] = NOT_FOUND if stretch in offsets else offset
        return offsets

    def _extend(self, offset: int, other: int, step: int, most: int = sys.maxsize) -> int:
        """Pair equal characters from two offsets on, so many at most; returns how many."""
        left, right, of_left, taken = self._left, self._right, self._of_left, self._taken
        count = 0
        while (
            count < most
            and 0 <= offset < len(left)
            and 0 <= other < len(right)
            and left[offset] == right[other]
            and of_left[offset] == NOT_FOUND
            and not taken[other]
        ):
            of_left[offset] = other
            taken[other] = 1
            offset, other, count = offset + step, other + step, count + 1
        return count

    def _follow(self) -> None:
        """Go on behind what is paired, over small differences: repeated stretches follow their neighbours."""
        offset, other = 0, 0
        while offset < len(self._left):
            if self._of_left[offset] != NOT_FOUND:
                other = self._of_left[offset] + 1
                offset += 1
            elif (skipped := self._resync(offset, other)) is not None:
                offset, other = offset + skipped[0], other + skipped[1]
                count = self._extend(offset, other, 1)
                offset, other = offset + count, other + count
            else:
                # Until the next that is paired.
                offset += 1
                while offset < len(self._left) and self._of_left[offset] == NOT_FOUND:
                    offset += 1

    def _resync(self, offset: int, other: int) -> tuple[int, int] | None:
        """How far to go on in both strings to where they agree again; None if nowhere near."""
        left, right = self._left, self._right
        free = 0
        while free < _RESYNC_WITHIN and offset + free < len(left) and self._of_left[offset + free] == NOT_FOUND:
            free += 1
        for distance in range(2 * _RESYNC_WITHIN):
            for skip in range(max(0, distance - _RESYNC_WITHIN), min(distance, free - 1) + 1):
                there = other + distance - skip
                if (
                    there + _RESYNC_LENGTH <= len(right)
                    and left.startswith(right[there : there + _RESYNC_LENGTH], offset + skip)
                    and not any(self._taken[there : there + _RESYNC_LENGTH])
                    and self._of_left[offset + skip] == NOT_FOUND
                ):
                    return skip, distance - skip
        return None

    def _fill_gaps(self) -> None:
        """Pair what is left between two neighbours with what is left between theirs."""
        end = 0
        while end < len(self._left):
            if self._of_left[end] != NOT_FOUND:
                end += 1
                continue
            start = end
            while end < len(self._left) and self._of_left[end] == NOT_FOUND:
                end += 1
            for other_start, other_end in self._gaps_beside(start, end):
                self._fill(start, end, other_start, other_end)

    def _gaps_beside(self, start: int, end: int) -> list[tuple[int, int]]:
        """The stretches of the right string that are free behind the left neighbour's, and before the right one's."""
        before = self._of_left[start - 1] + 1 if start else 0
        after = self._of_left[end] if end < len(self._left) else len(self._right)
        behind = self._taken.find(1, before)
        first = (before, len(self._right) if behind < 0 else behind)
        last = (self._taken.rfind(1, 0, after) + 1, after)
        return [gap for gap in dict.fromkeys((first, last)) if gap[0] < gap[1]]

    def _fill(self, start: int, end: int, other_start: int, other_end: int) -> None:
        work = (end - start) * (other_end - other_start)
        if end - start > _MOST_GAP or other_end - other_start > _MOST_GAP:
            return
        self._gap_work += work
        if self._gap_work > _MOST_GAP_WORK:
            return
        matcher = SequenceMatcher(None, self._left[start:end], self._right[other_start:other_end], autojunk=False)
        blocks = matcher.get_matching_blocks()
        # Single letters agree by chance in any two texts.
        is_same = sum(block.size for block in blocks) >= _SAME_SHARE * max(end - start, other_end - other_start)
        for offset, other, size in blocks:
            if size >= (1 if is_same else _RESYNC_LENGTH):
                self._extend(start + offset, other_start + other, 1, size)
