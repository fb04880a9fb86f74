"""Formulas of office documents, written in one line: "(a + b)/2", "x^2".

See ECMA-376, part 1, 22.1.
"""

from app.library.formats.mathml import grouped
from app.library.office.package import Element

# Deeper ones are written without their structure.
_DEEPEST = 50


def formula_text(formula: Element, depth: int = 0) -> str:
    """A formula (`oMath` or a part of one) as text."""
    tag = formula.tag
    if tag == "t" or depth > _DEEPEST:
        return "".join(text.text or "" for text in formula.iter("t"))

    def part(name: str) -> str:
        found = formula.find(name)
        return "" if found is None else formula_text(found, depth + 1)

    if tag == "f":
        return f"{grouped(part('num'))}/{grouped(part('den'))}"
    if tag == "sSup":
        return f"{part('e')}^{grouped(part('sup'))}"
    if tag == "sSub":
        return f"{part('e')}_{grouped(part('sub'))}"
    if tag == "sSubSup":
        return f"{part('e')}_{grouped(part('sub'))}^{grouped(part('sup'))}"
    if tag == "rad":
        return f"{part('deg')}√{grouped(part('e'))}"
    if tag == "d":
        return f"({', '.join(formula_text(one, depth + 1) for one in formula.findall('e'))})"
    return "".join(formula_text(child, depth + 1) for child in formula)
