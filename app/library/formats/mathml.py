"""Formulas in MathML, written in one line: "(a + b)/2", "x^2"; see https://www.w3.org/TR/mathml-core/."""

from bs4 import NavigableString, Tag
from bs4.element import PreformattedString

# Deeper ones are written without their structure.
_DEEPEST = 50
_DROPPED = ("annotation", "annotation-xml")


def formula_text(formula: Tag, depth: int = 0) -> str:
    """The text of a `math` element or a part of one."""
    name = formula.name.rpartition(":")[2]
    if name in _DROPPED:
        return ""
    if depth > _DEEPEST:
        return formula.get_text()
    parts = [text for child in formula.contents if (text := _part(child, depth))]
    if name == "mfrac" and len(parts) == 2:
        return f"{grouped(parts[0])}/{grouped(parts[1])}"
    if name == "msup" and len(parts) == 2:
        return f"{parts[0]}^{grouped(parts[1])}"
    if name in ("msub", "munder") and len(parts) == 2:
        return f"{parts[0]}_{grouped(parts[1])}"
    if name in ("msubsup", "munderover") and len(parts) == 3:
        return f"{parts[0]}_{grouped(parts[1])}^{grouped(parts[2])}"
    if name == "msqrt":
        return f"√{grouped(''.join(parts))}"
    return "".join(parts)


def _part(node: object, depth: int) -> str:
    if isinstance(node, Tag):
        return formula_text(node, depth + 1)
    is_text = isinstance(node, NavigableString) and not isinstance(node, PreformattedString)
    return " ".join(node.split()) if is_text else ""


def grouped(text: str) -> str:
    """A part of a formula in parentheses, if it needs them."""
    return text if len(text) <= 1 or text.isalnum() else f"({text})"
