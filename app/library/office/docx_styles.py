"""Word's styles, as far as they bear on text: which are headings, which are hidden, which are numbered.

See ECMA-376, part 1, 17.7.
"""

import re
from functools import cache

from app.library.office.package import Element, is_on, number_of, value_of

_HEADING = re.compile("heading ([1-9])", re.IGNORECASE)
# Styles are based on others; those that are based on themselves are not followed for ever.
_DEEPEST = 20
# Word's levels count from 0; this one says that it is no heading.
_BODY_LEVEL = 9


class Styles:
    """The styles of a document.

    Args:
        root: the styles part; None if there is none.
    """

    def __init__(self, root: Element | None):
        styles = [] if root is None else root.findall("style")
        self._by_id = {style.get("styleId", ""): style for style in styles}
        defaults = (one for one in styles if one.get("type") == "paragraph" and one.get("default") in ("1", "true"))
        # Thousands of paragraphs have one style.
        self._style_level = cache(self._find_level)
        self.numbering = cache(self._find_numbering)
        self.is_hidden = cache(self._find_hidden)
        self.default_paragraph = next((style.get("styleId", "") for style in defaults), "")

    def outline_level(self, style_id: str, own: str | None) -> int:
        """1 for headings of the first level, 0 for what is none; `own` is what the paragraph itself says."""
        level = self._style_level(style_id) if own is None else number_of(own, _BODY_LEVEL)
        return level + 1 if 0 <= level < _BODY_LEVEL else 0

    def _find_level(self, style_id: str) -> int:
        for style in self._line(style_id):
            if match := _HEADING.fullmatch(value_of(style, "name") or ""):
                return int(match.group(1)) - 1
            if (own := value_of(style, "pPr/outlineLvl")) is not None:
                return number_of(own, _BODY_LEVEL)
        return _BODY_LEVEL

    def _find_numbering(self, style_id: str) -> tuple[str | None, str | None]:
        """The list that a style's paragraphs belong to, and their level; None where it does not say."""
        level = None
        for style in self._line(style_id):
            level = value_of(style, "pPr/numPr/ilvl") if level is None else level
            if (number_id := value_of(style, "pPr/numPr/numId")) is not None:
                return number_id, level
        return None, level

    def _find_hidden(self, style_id: str) -> bool:
        """Whether a style hides its text."""
        for style in self._line(style_id):
            if (properties := style.find("rPr")) is not None and properties.find("vanish") is not None:
                return is_on(properties, "vanish")
        return False

    def is_hidden_run(self, properties: Element | None, is_paragraph_hidden: bool) -> bool:
        """Whether a run's text is hidden, by itself, its style or its paragraph's."""
        if properties is None:
            return is_paragraph_hidden
        if properties.find("vanish") is not None:
            return is_on(properties, "vanish")
        style = value_of(properties, "rStyle")
        return is_paragraph_hidden or (style is not None and self.is_hidden(style))

    def _line(self, style_id: str) -> list[Element]:
        """A style and those that it is based on."""
        line: list[Element] = []
        style = self._by_id.get(style_id)
        while style is not None and len(line) < _DEEPEST:
            line.append(style)
            style = self._by_id.get(value_of(style, "basedOn") or "")
        return line
