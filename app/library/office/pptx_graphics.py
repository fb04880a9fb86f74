"""Tables, charts and diagrams of a slide, as lines of text."""

from app.library.formats.line_forms import row_line
from app.library.office.package import Element, OfficePackage
from app.library.office.pptx_text import body_text, paragraph_text

# The points of a chart are read up to so many: others are drawings of data that nobody reads one by one.
_CHART_POINTS = 200


def graphic_text(package: OfficePackage, relations: dict[str, tuple[str, str]], frame: Element) -> str:
    """What a graphic frame says.

    Args:
        package: the document.
        relations: those of the part that the frame is in.
        frame: the `graphicFrame`.
    """
    data = frame.find("graphic/graphicData")
    if data is None:
        return ""
    if (table := data.find("tbl")) is not None:
        return "\n".join(filter(None, (_row(row) for row in table.iterfind("tr"))))
    if (chart := data.find("chart")) is not None:
        return _chart(package.optional_xml(_target(relations, chart.get("rel:id"))))
    if (diagram := data.find("relIds")) is not None:
        return _diagram(package.optional_xml(_target(relations, diagram.get("rel:dm"))))
    return ""


def _target(relations: dict[str, tuple[str, str]], relation_id: str | None) -> str | None:
    return relations.get(relation_id or "", ("", None))[1]


def _row(row: Element) -> str:
    cells = []
    for cell in row.iterfind("tc"):
        is_merged = cell.get("hMerge") in ("1", "true") or cell.get("vMerge") in ("1", "true")
        cells.append("" if is_merged else body_text(cell.find("txBody")))
    return row_line(cells)


def _chart(root: Element | None) -> str:
    """Its title, and its data as a table: a column for each series."""
    if root is None:
        return ""
    title = "".join(paragraph_text(paragraph) for paragraph in root.iterfind("chart/title/tx/rich/p"))
    names, columns, categories = [], [], {}
    for series in root.iterfind(".//ser"):
        names.append(" ".join(_points(series.find("tx")).values()))
        categories = _points(series.find("cat")) or _points(series.find("xVal")) or categories
        columns.append(_points(series.find("val")) or _points(series.find("yVal")))
    indexes = sorted({index for column in [categories, *columns] for index in column})[:_CHART_POINTS]
    rows = [row_line([categories.get(index, ""), *(column.get(index, "") for column in columns)]) for index in indexes]
    header = f"| {row_line(names)}" if any(names) else ""
    return "\n".join(filter(None, [title, header, *rows]))


def _points(source: Element | None) -> dict[int, str]:
    """The values that a chart keeps of its sheet, by their position."""
    found: dict[int, str] = {}
    for position, point in enumerate([] if source is None else source.iter("pt")):
        value = point.find("v")
        if value is not None and value.text and position < _CHART_POINTS:
            index = point.get("idx", "")
            found[int(index) if index.isdecimal() else position] = value.text
    return found


def _diagram(root: Element | None) -> str:
    points = [] if root is None else root.iterfind("ptLst/pt")
    # Others repeat for the drawing what these say.
    bodies = [point.find("t") for point in points if point.get("type", "node") in ("node", "asst")]
    return "\n".join(filter(None, map(body_text, bodies)))
