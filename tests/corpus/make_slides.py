"""Makes the corpus's presentations: titles, places inherited from layouts, groups, notes, graphics. Run by hand."""

from __future__ import annotations

from written_document import write_document, zipped

A = "http://schemas.openxmlformats.org/drawingml/2006/main"
P = "http://schemas.openxmlformats.org/presentationml/2006/main"
R = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
CHART = "http://schemas.openxmlformats.org/drawingml/2006/chart"
DIAGRAM = "http://schemas.openxmlformats.org/drawingml/2006/diagram"
NAMES = f'xmlns:a="{A}" xmlns:p="{P}" xmlns:r="{R}" xmlns:c="{CHART}" xmlns:dgm="{DIAGRAM}"'
# EMU, a tenth of an inch.
TENTH = 91_440


def place(left: int, top: int, width: int, height: int) -> str:
    return f'<a:xfrm><a:off x="{left * TENTH}" y="{top * TENTH}"/>' + (
        f'<a:ext cx="{width * TENTH}" cy="{height * TENTH}"/></a:xfrm>'
    )


def shape(text: str, kind: str = "", box: tuple[int, int, int, int] | None = None, index: int = 0) -> str:
    """A shape with a paragraph for each line; `kind` makes it a placeholder."""
    marked = f'<p:ph type="{kind}"{f" idx={chr(34)}{index}{chr(34)}" if index else ""}/>' if kind else ""
    lines = "".join(line if line.startswith("<") else paragraph(line) for line in text.split("\n") if line)
    return (
        f'<p:sp><p:nvSpPr><p:cNvPr id="1" name="x"/><p:cNvSpPr/><p:nvPr>{marked}</p:nvPr></p:nvSpPr><p:spPr>'
        f"{place(*box) if box else ''}</p:spPr><p:txBody><a:bodyPr/>{lines}</p:txBody></p:sp>"
    )


def paragraph(text: str, properties: str = "") -> str:
    return f"<a:p><a:pPr>{properties}</a:pPr><a:r><a:t>{text}</a:t></a:r></a:p>"


def frame(content: str, uri: str, box: tuple[int, int, int, int]) -> str:
    moved = place(*box).replace("a:xfrm", "p:xfrm")
    graphic = f'<a:graphic><a:graphicData uri="{uri}">{content}</a:graphicData></a:graphic>'
    return f"<p:graphicFrame>{moved}{graphic}</p:graphicFrame>"


def tree(content: str, root: str = "sld") -> str:
    return f'<?xml version="1.0"?><p:{root} {NAMES}><p:cSld><p:spTree>{content}</p:spTree></p:cSld></p:{root}>'


def relations(*pairs: tuple[str, str, str]) -> str:
    listed = "".join(f'<Relationship Id="{one}" Type="{R}/{kind}" Target="{to}"/>' for one, kind, to in pairs)
    return f'<?xml version="1.0"?><Relationships xmlns="{RELATIONS}">{listed}</Relationships>'


def pptx(
    slides: list[str], parts: dict[str, str] | None = None, more: dict[int, list[tuple[str, str, str]]] | None = None
):
    """A presentation; `more` are relations of single slides, by their number."""
    ids = "".join(f'<p:sldId id="{256 + number}" r:id="s{number}"/>' for number in range(len(slides)))
    files = {
        "[Content_Types].xml": '<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/'
        'content-types"><Default Extension="xml" ContentType="application/xml"/></Types>',
        "_rels/.rels": relations(("r1", "officeDocument", "ppt/presentation.xml")),
        "ppt/presentation.xml": f'<?xml version="1.0"?><p:presentation {NAMES}><p:sldIdLst>{ids}</p:sldIdLst>'
        "</p:presentation>",
        # Not in the order of the slides: their list decides.
        "ppt/_rels/presentation.xml.rels": relations(
            *((f"s{number}", "slide", f"slides/slide{len(slides) - number}.xml") for number in range(len(slides)))
        ),
        "ppt/slideLayouts/slideLayout1.xml": tree(
            shape("Click to edit", "title", (10, 5, 80, 10))
            + shape("Left", "body", (10, 20, 35, 40), index=1)
            + shape("Right", "body", (55, 20, 35, 40), index=2),
            "sldLayout",
        ),
        **(parts or {}),
    }
    for number, content in enumerate(slides):
        name = f"slide{len(slides) - number}.xml"
        files[f"ppt/slides/{name}"] = tree(content)
        layout = ("layout", "slideLayout", "../slideLayouts/slideLayout1.xml")
        files[f"ppt/slides/_rels/{name}.rels"] = relations(layout, *(more or {}).get(number, []))
    return zipped(files)


def presentations() -> None:
    """All of them."""
    cell = "<a:tc{}><a:txBody><a:bodyPr/>{}</a:txBody></a:tc>"
    rows = "".join(
        f"<a:tr>{''.join(cell.format('', paragraph(text)) for text in row)}</a:tr>"
        for row in (("Pier", "Depth"), ("North", "2 fathoms"))
    )
    merged = cell.format(' gridSpan="2"', paragraph("Both")) + cell.format(' hMerge="1"', "<a:p/>")
    merged += cell.format("", paragraph("deep"))
    slides = [
        shape("The Ferry", "ctrTitle", (10, 30, 80, 10)) + shape("A history", "subTitle", (10, 45, 80, 10))
        + shape("12 March", "dt", (1, 70, 9, 3)) + shape("7", "sldNum", (90, 70, 9, 3)),
        shape("Second in the file, first to be drawn", "body", index=1) + shape("The Ice", "title"),
        shape("Piers", "title") + frame(f"<a:tbl>{rows}<a:tr>{merged}</a:tr></a:tbl>", "t", (10, 20, 80, 20)),
        '<p:pic><p:nvPicPr><p:cNvPr id="4" name="Photo"/></p:nvPicPr></p:pic>',
    ]  # fmt: skip
    notes = tree(
        '<p:sp><p:nvSpPr><p:cNvPr id="2" name="i"/><p:cNvSpPr/><p:nvPr><p:ph type="sldImg"/></p:nvPr>'
        "</p:nvSpPr><p:spPr/>"
        "</p:sp>" + shape("Say that it froze twice.\nThen pause.", "body") + shape("2", "sldNum"),
        "notes",
    )
    pages = [
        ("1. The Ferry", "The Ferry\nA history"),
        ("2. The Ice", "The Ice\nSecond in the file, first to be drawn\nNotes: Say that it froze twice.\nThen pause."),
        ("3. Piers", "Piers\nPier | Depth\nNorth | 2 fathoms\nBoth | | deep"),
        ("4", ""),
    ]
    content = pptx(
        slides,
        {"ppt/notesSlides/notesSlide1.xml": notes},
        {1: [("n", "notesSlide", "../notesSlides/notesSlide1.xml")]},
    )
    write_document("pptx", "titles_tables_notes.pptx", content, pages)

    group = (
        f'<p:grpSp><p:nvGrpSpPr/><p:grpSpPr><a:xfrm><a:off x="{55 * TENTH}" y="{20 * TENTH}"/><a:ext cx="{40 * TENTH}" '
        f'cy="{40 * TENTH}"/><a:chOff x="0" y="0"/><a:chExt cx="1000" cy="1000"/></a:xfrm></p:grpSpPr>'
    )
    inner = shape("Low").replace(
        "<p:spPr>", '<p:spPr><a:xfrm><a:off x="0" y="600"/><a:ext cx="900" cy="300"/></a:xfrm>'
    )
    upper = shape("High").replace("<p:spPr>", '<p:spPr><a:xfrm><a:off x="0" y="0"/><a:ext cx="900" cy="300"/></a:xfrm>')
    slides = [
        shape("Tides", "title") + f"{group}{inner}{upper}</p:grpSp>"
        + shape("beneath it", box=(10, 35, 38, 10)) + shape("Left heading", box=(10, 20, 38, 10)),
        shape("On the right, one\non the right, two", "body", index=2) + shape("On the left", "body", index=1)
        + shape("Two columns", "title"),
        shape(paragraph("first", '<a:buAutoNum type="arabicPeriod"/>') + "\n"
              + paragraph("inner", '<a:buChar char="-"/>').replace("<a:pPr>", '<a:pPr lvl="1">') + "\n"
              + paragraph("second", '<a:buAutoNum type="arabicPeriod"/>'), box=(10, 20, 50, 30)),
    ]  # fmt: skip
    pages = [
        ("1. Tides", "Tides\nLeft heading\nbeneath it\nHigh\nLow"),
        ("2. Two columns", "Two columns\nOn the left\n• On the right, one\n• on the right, two"),
        ("3", "1. first\n• inner\n2. second"),
    ]
    write_document("pptx", "groups_and_columns.pptx", pptx(slides), pages)

    def cache(name: str, values: list[str]) -> str:
        points = "".join(f'<c:pt idx="{index}"><c:v>{value}</c:v></c:pt>' for index, value in enumerate(values))
        return f"<c:{name}><c:strRef><c:strCache>{points}</c:strCache></c:strRef></c:{name}>"

    chart = (
        f"<?xml version='1.0'?><c:chartSpace {NAMES}><c:chart><c:title><c:tx><c:rich><a:p><a:r>"
        "<a:t>Ice days</a:t></a:r>"
        f"</a:p></c:rich></c:tx></c:title><c:plotArea><c:barChart><c:ser>{cache('tx', ['Days'])}"
        f"{cache('cat', ['1871', '1872'])}{cache('val', ['41', '17'])}</c:ser></c:barChart></c:plotArea></c:chart>"
        "</c:chartSpace>"
    )
    point = '<dgm:pt modelId="{0}" type="{1}"><dgm:t><a:bodyPr/><a:p><a:r><a:t>{2}</a:t></a:r></a:p></dgm:t></dgm:pt>'
    diagram = (
        f"<?xml version='1.0'?><dgm:dataModel {NAMES}><dgm:ptLst>{point.format(1, 'node', 'Freeze')}"
        f"{point.format(2, 'node', 'Thaw')}{point.format(3, 'pres', 'Freeze')}</dgm:ptLst></dgm:dataModel>"
    )
    slides = [
        shape("Winters", "title")
        + frame('<c:chart r:id="c1"/>', CHART, (10, 20, 35, 40))
        + frame('<dgm:relIds r:dm="d1" r:lo="x"/>', DIAGRAM, (55, 20, 35, 40))
    ]
    parts = {"ppt/charts/chart1.xml": chart, "ppt/diagrams/data1.xml": diagram}
    more = {0: [("c1", "chart", "../charts/chart1.xml"), ("d1", "diagramData", "../diagrams/data1.xml")]}
    pages = [("1. Winters", "Winters\nIce days\n| Days\n1871 | 41\n1872 | 17\nFreeze\nThaw")]
    write_document("pptx", "charts_and_diagrams.pptx", pptx(slides, parts, more), pages)


if __name__ == "__main__":
    presentations()
