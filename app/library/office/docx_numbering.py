"""Word's numbered paragraphs: their numbers and bullets are in no text, but follow from the paragraphs before.

See ECMA-376, part 1, 17.9. Knows nothing of paragraphs but which list and level they name.
"""

import re

from app.library.formats.line_forms import BULLET, letters, roman
from app.library.office.package import Element, number_of, value_of

_WRITTEN = {
    "lowerLetter": letters,
    "upperLetter": lambda number: letters(number).upper(),
    "lowerRoman": roman,
    "upperRoman": lambda number: roman(number).upper(),
    "decimalZero": lambda number: f"{number:02}",
}
_PLACE = re.compile("%([1-9])")
_LEVELS = 9


class Numbering:
    """Counts the numbered paragraphs of a document.

    Args:
        root: the numbering part; None if there is none.
    """

    def __init__(self, root: Element | None):
        self._levels: dict[str, dict[int, Element]] = {}
        self._starts: dict[str, dict[int, int]] = {}
        self._list_of: dict[str, str] = {}
        self._counts: dict[str, list[int | None]] = {}
        self._begun: set[str] = set()
        if root is None:
            return
        by_style, abstract_lists = {}, {}
        for one in root.findall("abstractNum"):
            abstract_lists[one.get("abstractNumId", "")] = one
            if style := value_of(one, "styleLink"):
                by_style[style] = one
        for num in root.findall("num"):
            number_id, abstract_id = num.get("numId", ""), value_of(num, "abstractNumId") or ""
            abstract = abstract_lists.get(abstract_id)
            if abstract is None:
                continue
            abstract = by_style.get(value_of(abstract, "numStyleLink") or "", abstract)
            levels = {number_of(level.get("ilvl"), 0): level for level in abstract.findall("lvl")}
            for override in num.findall("lvlOverride"):
                index = number_of(override.get("ilvl"), 0)
                if (level := override.find("lvl")) is not None:
                    levels[index] = level
                if (start := value_of(override, "startOverride")) is not None:
                    self._starts.setdefault(number_id, {})[index] = number_of(start, 1)
            self._levels[number_id] = levels
            self._list_of[number_id] = abstract.get("abstractNumId", "")

    def next_mark(self, number_id: str, index: int) -> str:
        """What stands before the next paragraph of a list: "2.1", "(a)", "•"; "" if nothing does.

        Args:
            number_id: of the list; unknown ones have no marks.
            index: 0-based level.
        """
        levels = self._levels.get(number_id, {})
        level = levels.get(index)
        if level is None or not 0 <= index < _LEVELS:
            return ""
        counts = self._counts.setdefault(self._list_of[number_id], [None] * _LEVELS)
        if number_id not in self._begun:
            # Lists of one kind go on counting where the last one ended, unless they say where they begin.
            self._begun.add(number_id)
            for restarted in self._starts.get(number_id, {}):
                if 0 <= restarted < _LEVELS:
                    counts[restarted] = None
        for above in range(index):
            if counts[above] is None:
                counts[above] = self._start(number_id, above)
        counts[index] = self._start(number_id, index) if counts[index] is None else counts[index] + 1
        counts[index + 1 :] = [None] * (_LEVELS - index - 1)
        kind, text = value_of(level, "numFmt") or "decimal", value_of(level, "lvlText") or ""
        if kind == "bullet":
            return BULLET if text.strip() else ""
        if kind == "none":
            return _PLACE.sub("", text).strip()
        is_legal = level.find("isLgl") is not None
        return _PLACE.sub(lambda place: self._number(levels, counts, int(place.group(1)) - 1, is_legal), text).strip()

    def _start(self, number_id: str, index: int) -> int:
        level = self._levels[number_id].get(index)
        start = 1 if level is None else number_of(value_of(level, "start"), 1)
        return self._starts.get(number_id, {}).get(index, start)

    @staticmethod
    def _number(levels: dict[int, Element], counts: list[int | None], index: int, is_legal: bool) -> str:
        level, count = levels.get(index), counts[index]
        if level is None or count is None:
            return ""
        write = str if is_legal else _WRITTEN.get(value_of(level, "numFmt") or "", str)
        return write(count)
