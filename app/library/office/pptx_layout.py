"""Where the shapes of a slide are, and in which order one reads them.

A placeholder that says nothing of its place is where its layout or master has it. Lengths are EMU, 914,400 an inch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.library.office.package import Element, OfficePackage, number_of

# left, top, right, bottom
Box = tuple[float, float, float, float]
_SHAPES = ("sp", "pic", "graphicFrame", "cxnSp")
# Boxes that touch, or overlap a little, are beside each other all the same.
_OVERLAP_EMU = 100_000
# More shapes are a drawing, which has no order of reading.
_MOST_SORTED = 500


@dataclass(frozen=True)
class PlacedShape:
    """A shape, the kind of placeholder that it is ("" if none), and its place; None where nobody says."""

    element: Element
    kind: str
    box: Box | None


@dataclass(frozen=True)
class _Transform:
    """From the coordinates inside of a group to those of the slide."""

    left: float = 0.0
    top: float = 0.0
    scale_x: float = 1.0
    scale_y: float = 1.0

    def box(self, left: float, top: float, width: float, height: float) -> Box:
        x, y = self.left + left * self.scale_x, self.top + top * self.scale_y
        return (x, y, x + width * self.scale_x, y + height * self.scale_y)


class Layouts:
    """The layouts and masters of a presentation, each read once."""

    def __init__(self, package: OfficePackage):
        self._package = package
        self._places: dict[str, list[tuple[str, str, Box]]] = {}

    def placed_shapes(self, root: Element, part_name: str) -> list[PlacedShape]:
        """The shapes of a slide, those inside of groups too, in the order in which they are drawn."""
        tree = root.find("cSld/spTree")
        if tree is None:
            return []
        return [self._with_place(shape, part_name) for shape in _shapes(tree, _Transform())]

    def _with_place(self, shape: PlacedShape, part_name: str) -> PlacedShape:
        placeholder = shape.element.find(".//nvPr/ph")
        if shape.box is not None or placeholder is None:
            return shape
        index, kind, name = placeholder.get("idx", ""), shape.kind, part_name
        for above in ("slideLayout", "slideMaster"):
            name = self._package.related(name, above) or ""
            if not name:
                break
            places = self._places_in(name)
            found = next((box for one, _, box in places if index and one == index and above == "slideLayout"), None)
            found = found or next((box for _, one, box in places if _base_kind(one) == _base_kind(kind)), None)
            if found is not None:
                return PlacedShape(shape.element, kind, found)
        return shape

    def _places_in(self, name: str) -> list[tuple[str, str, Box]]:
        if name not in self._places:
            root = self._package.optional_xml(name)
            tree = None if root is None else root.find("cSld/spTree")
            places = []
            for shape in [] if tree is None else _shapes(tree, _Transform()):
                placeholder = shape.element.find(".//nvPr/ph")
                if placeholder is not None and shape.box is not None:
                    places.append((placeholder.get("idx", ""), shape.kind, shape.box))
            self._places[name] = places
        return self._places[name]


def _base_kind(kind: str) -> str:
    return {"ctrTitle": "title", "obj": "body", "subTitle": "body"}.get(kind, kind)


def _shapes(parent: Element, transform: _Transform) -> Iterator[PlacedShape]:
    for child in parent:
        if child.tag == "grpSp":
            yield from _shapes(child, _inside(child, transform))
        elif child.tag == "AlternateContent":
            alternative = child.find("Choice")
            alternative = child.find("Fallback") if alternative is None else alternative
            if alternative is not None:
                yield from _shapes(alternative, transform)
        elif child.tag in _SHAPES and not _is_hidden(child):
            placeholder = child.find(".//nvPr/ph")
            kind = "" if placeholder is None else placeholder.get("type", "obj")
            yield PlacedShape(child, kind, _box(child, transform))


def _is_hidden(shape: Element) -> bool:
    properties = shape.find("./*/cNvPr")
    return properties is not None and properties.get("hidden") in ("1", "true")


def _box(shape: Element, transform: _Transform) -> Box | None:
    place = shape.find("spPr/xfrm")
    place = shape.find("xfrm") if place is None else place
    offset, extent = (None, None) if place is None else (place.find("off"), place.find("ext"))
    if offset is None or extent is None:
        return None
    left, top = number_of(offset.get("x"), 0), number_of(offset.get("y"), 0)
    return transform.box(left, top, number_of(extent.get("cx"), 0), number_of(extent.get("cy"), 0))


def _inside(group: Element, transform: _Transform) -> _Transform:
    place = group.find("grpSpPr/xfrm")
    parts = [None] * 4 if place is None else [place.find(name) for name in ("off", "ext", "chOff", "chExt")]
    if any(part is None for part in parts):
        return transform
    off, ext, child_off, child_ext = parts
    width, height = number_of(child_ext.get("cx"), 0), number_of(child_ext.get("cy"), 0)
    scale_x = number_of(ext.get("cx"), 0) / width if width else 1.0
    scale_y = number_of(ext.get("cy"), 0) / height if height else 1.0
    left, top = number_of(off.get("x"), 0), number_of(off.get("y"), 0)
    return _Transform(
        transform.left + (left - number_of(child_off.get("x"), 0) * scale_x) * transform.scale_x,
        transform.top + (top - number_of(child_off.get("y"), 0) * scale_y) * transform.scale_y,
        transform.scale_x * scale_x,
        transform.scale_y * scale_y,
    )


def in_reading_order(shapes: Sequence[PlacedShape]) -> list[PlacedShape]:
    """Cut along the widest gap, between columns or between rows, and so on in the parts.

    Args:
        shapes: in the order in which they are drawn, which decides between those that nothing separates.

    Returns:
        Those without a place come last.
    """
    placed = [shape for shape in shapes if shape.box is not None]
    ordered: list[PlacedShape] = []
    parts = [placed]
    while parts:
        part = parts.pop()
        (column_gap, columns), (row_gap, rows) = _widest_gap(part, 0), _widest_gap(part, 1)
        if 1 < len(part) <= _MOST_SORTED and max(column_gap, row_gap) > -_OVERLAP_EMU:
            parts.extend(reversed(columns if column_gap > row_gap else rows))
        else:
            ordered += sorted(part, key=lambda shape: (shape.box[1], shape.box[0]))
    return ordered + [shape for shape in shapes if shape.box is None]


def _widest_gap(shapes: Sequence[PlacedShape], axis: int) -> tuple[float, list[list[PlacedShape]]]:
    """The widest gap across one axis, negative where boxes overlap, and the shapes on both of its sides."""
    order = sorted(shapes, key=lambda shape: shape.box[axis])
    best, cut = float("-inf"), 0
    end = float("-inf")
    for position, shape in enumerate(order):
        if position and (gap := shape.box[axis] - end) > best:
            best, cut = gap, position
        end = max(end, shape.box[axis + 2])
    return best, [order[:cut], order[cut:]]
