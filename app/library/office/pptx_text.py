"""The text in a shape or a cell: its paragraphs with the bullets and numbers that are drawn before them."""

from app.library.formats.line_forms import BULLET, letters, roman
from app.library.office.math import formula_text
from app.library.office.package import Element, number_of

_LEVELS = 9
_WRITTEN = {"alpha": letters, "roman": roman}


def body_text(body: Element | None, has_bullets: bool = False) -> str:
    """The paragraphs of a text body, a line each.

    Args:
        body: a `txBody`; None for none.
        has_bullets: what its layout does where it says nothing itself.
    """
    if body is None:
        return ""
    lines: list[str] = []
    counts = [0] * _LEVELS
    paragraphs = [(paragraph, paragraph_text(paragraph)) for paragraph in body.iterfind("p")]
    has_bullets = has_bullets and sum(bool(text.strip()) for _, text in paragraphs) > 1
    for paragraph, text in paragraphs:
        if text.strip():
            mark = _mark(paragraph.find("pPr"), counts, has_bullets)
            lines.append(f"{mark} {text}" if mark else text)
    return "\n".join(lines)


def paragraph_text(paragraph: Element) -> str:
    """The runs, fields, line breaks and formulas of one paragraph."""
    pieces: list[str] = []
    stack = [iter(paragraph)]
    while stack:
        child = next(stack[-1], None)
        if child is None:
            stack.pop()
        elif child.tag in ("r", "fld"):
            pieces.append("".join(text.text or "" for text in child.iterfind("t")))
        elif child.tag == "br":
            pieces.append("\n")
        elif child.tag == "oMath":
            pieces.append(formula_text(child))
        elif child.tag not in ("pPr", "endParaRPr", "Fallback"):
            stack.append(iter(child))
    return "".join(pieces)


def _mark(properties: Element | None, counts: list[int], has_bullets: bool) -> str:
    level = 0 if properties is None else min(max(number_of(properties.get("lvl"), 0), 0), _LEVELS - 1)
    counts[level + 1 :] = [0] * (_LEVELS - level - 1)
    numbered = None if properties is None else properties.find("buAutoNum")
    if numbered is None:
        counts[level] = 0
        if properties is not None and properties.find("buNone") is not None:
            return ""
        drawn = properties is not None and (properties.find("buChar") is not None or properties.find("buBlip"))
        return BULLET if drawn or has_bullets else ""
    counts[level] = counts[level] + 1 if counts[level] else number_of(numbered.get("startAt"), 1)
    kind, number = numbered.get("type", "arabicPeriod"), counts[level]
    write = next((form for name, form in _WRITTEN.items() if kind.startswith(name)), str)
    written = write(number).upper() if "Uc" in kind else write(number)
    if kind.endswith("ParenBoth"):
        return f"({written})"
    return f"{written})" if kind.endswith("ParenR") else written if kind.endswith("Plain") else f"{written}."
