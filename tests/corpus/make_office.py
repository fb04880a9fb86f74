"""Makes the corpus's Word and OpenDocument texts: what is drawn, kept beside, or hidden. Run by hand."""

from __future__ import annotations

from written_document import write_document, zipped

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
STRICT_WORD = "http://purl.oclc.org/ooxml/wordprocessingml/main"
RELATED = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
STRICT_RELATED = "http://purl.oclc.org/ooxml/officeDocument/relationships"
RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
OTHERS = (
    'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math" '
    'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006" '
    'xmlns:wps="http://schemas.microsoft.com/office/word/2010/wordprocessingShape" '
    'xmlns:v="urn:schemas-microsoft-com:vml"'
)
RIVER = "The river had frozen over in the night, and the ferry lay fast between its two piers."
LETTER = "In the morning a letter came by sledge. Nobody in the house could read its seal."
MARKET = "On the market place a woman sold lanterns, each with a name painted on its glass."

STYLES = """
<w:style w:type="paragraph" w:default="1" w:styleId="Normal"><w:name w:val="Normal"/></w:style>
<w:style w:type="paragraph" w:styleId="berschrift1"><w:name w:val="heading 1"/><w:basedOn w:val="Normal"/>
<w:pPr><w:numPr><w:numId w:val="5"/></w:numPr><w:outlineLvl w:val="0"/></w:pPr></w:style>
<w:style w:type="paragraph" w:styleId="berschrift2"><w:name w:val="heading 2"/><w:basedOn w:val="berschrift1"/>
<w:pPr><w:numPr><w:ilvl w:val="1"/></w:numPr><w:outlineLvl w:val="1"/></w:pPr></w:style>
<w:style w:type="paragraph" w:styleId="Chapter"><w:name w:val="My Chapter"/>
<w:pPr><w:outlineLvl w:val="0"/></w:pPr></w:style>
<w:style w:type="character" w:styleId="Secret"><w:name w:val="Secret"/><w:rPr><w:vanish/></w:rPr></w:style>
"""


def level(index: int, kind: str, text: str, start: int = 1) -> str:
    return f'<w:lvl w:ilvl="{index}"><w:start w:val="{start}"/><w:numFmt w:val="{kind}"/>' + (
        f'<w:lvlText w:val="{text}"/></w:lvl>'
    )


NUMBERING = (
    f'<w:abstractNum w:abstractNumId="0">{level(0, "decimal", "%1")}{level(1, "decimal", "%1.%2")}</w:abstractNum>'
    f'<w:abstractNum w:abstractNumId="1">{level(0, "bullet", chr(0xF0B7))}{level(1, "lowerLetter", "%2)")}'
    "</w:abstractNum>"
    f'<w:abstractNum w:abstractNumId="2">{level(0, "upperRoman", "(%1)", start=3)}</w:abstractNum>'
    '<w:num w:numId="5"><w:abstractNumId w:val="0"/></w:num><w:num w:numId="6"><w:abstractNumId w:val="1"/></w:num>'
    '<w:num w:numId="7"><w:abstractNumId w:val="2"/></w:num>'
    '<w:num w:numId="8"><w:abstractNumId w:val="2"/><w:lvlOverride w:ilvl="0"><w:startOverride w:val="1"/>'
    "</w:lvlOverride>"
    "</w:num>"
)


def run(text: str, properties: str = "") -> str:
    return f'<w:r><w:rPr>{properties}</w:rPr><w:t xml:space="preserve">{text}</w:t></w:r>'


def paragraph(content: str, style: str = "", properties: str = "") -> str:
    content = content if content.startswith("<") else run(content)
    named = f'<w:pStyle w:val="{style}"/>' if style else ""
    return f"<w:p><w:pPr>{named}{properties}</w:pPr>{content}</w:p>"


def listed(text: str, number: int, index: int = 0) -> str:
    return paragraph(text, properties=f'<w:numPr><w:ilvl w:val="{index}"/><w:numId w:val="{number}"/></w:numPr>')


def table(*rows: str) -> str:
    return f"<w:tbl><w:tblPr/>{''.join(f'<w:tr>{row}</w:tr>' for row in rows)}</w:tbl>"


def cell(content: str, properties: str = "") -> str:
    inner = content if content.startswith("<") else paragraph(content)
    return f"<w:tc><w:tcPr>{properties}</w:tcPr>{inner}</w:tc>"


def docx(body: str, parts: dict[str, str] | None = None, strict: bool = False, kind: str = "document") -> bytes:
    """A Word document; `parts` are others, by the kind of their relation."""
    main, related = (STRICT_WORD, STRICT_RELATED) if strict else (WORD, RELATED)
    roots = {"styles": "styles", "numbering": "numbering", "footnotes": "footnotes", "endnotes": "endnotes",
             "header": "hdr", "footer": "ftr", "comments": "comments"}  # fmt: skip
    names = {"styles": STYLES, "numbering": NUMBERING, **(parts or {})}
    files = {
        "[Content_Types].xml": '<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/'
        'content-types"><Default Extension="xml" ContentType="application/xml"/><Default Extension="rels" ContentType='
        '"application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/word/document.xml" '
        "ContentType="
        f'"application/vnd.openxmlformats-officedocument.wordprocessingml.{kind}.main+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{RELATIONS}"><Relationship Id="r1" Type="{related}/officeDocument" '
        'Target="word/document.xml"/></Relationships>',
        "word/document.xml": f'<?xml version="1.0"?><w:document xmlns:w="{main}" xmlns:r="{related}" {OTHERS}><w:body>'
        f'{body}<w:sectPr><w:headerReference w:type="default" r:id="header"/></w:sectPr></w:body></w:document>',
        "word/_rels/document.xml.rels": f'<Relationships xmlns="{RELATIONS}">'
        + "".join(f'<Relationship Id="{one}" Type="{related}/{one}" Target="{one}.xml"/>' for one in names)
        + "</Relationships>",
    }
    for name, content in names.items():
        root = roots[name]
        files[f"word/{name}.xml"] = f'<?xml version="1.0"?><w:{root} xmlns:w="{main}" {OTHERS}>{content}</w:{root}>'
    return zipped(files)


def word_structure() -> None:
    """Headings, lists, tables, page breaks."""
    body = (
        paragraph("Cover note.")
        + paragraph("The Ice", "berschrift1")
        + paragraph(RIVER)
        + paragraph("By night", "berschrift2")
        + listed("bread,", 6)
        + listed("salt, coarse", 6, 1)
        + listed("salt, fine", 6, 1)
        + listed("a lamp", 6)
        + paragraph("By day", "berschrift2")
        + listed("third", 7)
        + listed("fourth", 7)
        + listed("first again", 8)
        + paragraph("The Letter", "berschrift1")
        + paragraph(LETTER)
    )
    text = (
        f"1 The Ice\n{RIVER}\n1.1 By night\n• bread,\na) salt, coarse\nb) salt, fine\n• a lamp\n1.2 By day\n"
        "(III) third\n"
        "(IV) fourth\n(I) first again"
    )
    pages = [("1", "Cover note."), ("1 The Ice", text), ("2 The Letter", f"2 The Letter\n{LETTER}")]
    parts = {"header": paragraph("CONFIDENTIAL"), "footer": paragraph("page 1 of 9")}
    write_document("docx", "numbered_headings_and_lists.docx", docx(body, parts), pages)

    body = (
        table(
            cell("Pier") + cell("Depth", '<w:gridSpan w:val="2"/>'),
            cell("North", '<w:vMerge w:val="restart"/>') + cell("2") + cell("fathoms"),
            cell("<w:p/>", "<w:vMerge/>") + cell("") + cell("high water"),
        ).replace(
            "<w:tr><w:tc><w:tcPr><w:vMerge w:val", "<w:tr><w:trPr><w:cantSplit/></w:trPr><w:tc><w:tcPr><w:vMerge w:val"
        )
        + paragraph(RIVER)
        + table(
            cell(paragraph("A letter.") + table(cell("Day") + cell("Tide"), cell("Monday") + cell("4.1")))
            + cell(MARKET)
        )
    )
    text = f"Pier | Depth\nNorth | 2 | fathoms\n| | high water\n{RIVER}\nA letter.\nDay | Tide\nMonday | 4.1\n{MARKET}"
    write_document("docx", "tables.docx", docx(body), [("1", text)])

    brk = '<w:r><w:br w:type="page"/></w:r>'
    body = (
        paragraph(RIVER) + paragraph(brk) + paragraph(LETTER) + paragraph(MARKET, properties="<w:pageBreakBefore/>")
        + paragraph("Still there." + "</w:t></w:r>" + brk + "<w:r><w:t>") + paragraph("The end.")
    )  # fmt: skip
    pages = [("1", RIVER), ("2", LETTER), ("3", f"{MARKET}\nStill there."), ("4", "The end.")]
    write_document("docx", "page_breaks.docx", docx(body), pages)

    body = "".join(
        paragraph(title, "Chapter") + paragraph(text)
        for title, text in (("The Ice", RIVER), ("The Letter", LETTER), ("The Market", MARKET))
    )
    pages = [
        (title, f"{title}\n{text}")
        for title, text in (("The Ice", RIVER), ("The Letter", LETTER), ("The Market", MARKET))
    ]
    write_document("docx", "strict_form.docx", docx(body, strict=True), pages)
    write_document("docx", "with_macros.docm", docx(body, kind="macroEnabled"), pages)


def word_beside_the_text() -> None:
    """Changes, notes, boxes, hidden text, fields, formulas."""
    body = (
        paragraph(
            run("The river had ") + f'<w:del w:id="1">{run("never ").replace("w:t", "w:delText")}</w:del>'
            f'<w:ins w:id="2">{run("long ")}</w:ins>' + run("frozen.")
        )
        + '<w:p><w:pPr><w:rPr><w:del w:id="3"/></w:rPr></w:pPr>' + run("One sentence ") + "</w:p>"
        + paragraph("of two paragraphs.")
        + f'<w:p><w:moveFrom w:id="4">{run("Moved away.")}</w:moveFrom></w:p>'
        + f'<w:p><w:moveTo w:id="5">{run("Moved here.")}</w:moveTo></w:p>'
        + table(cell("kept"), f'<w:trPr><w:del w:id="6"/></w:trPr>{cell("deleted row")}')
    )  # fmt: skip
    text = "The river had long frozen.\nOne sentence of two paragraphs.\nMoved here.\nkept"
    write_document("docx", "tracked_changes.docx", docx(body), [("1", text)])

    box = f"<w:txbxContent>{paragraph('A box beside it.')}</w:txbxContent>"
    body = (
        paragraph("The Ice", "Chapter")
        + paragraph(run("It froze") + '<w:r><w:footnoteReference w:id="2"/></w:r>' + run(" early") +
                    '<w:r><w:endnoteReference w:id="2"/></w:r>' + run("."))
        + paragraph(
            run("A paragraph. ") + f'<w:r><mc:AlternateContent><mc:Choice Requires="wps"><w:drawing><wps:txbx>{box}'
            f"</wps:txbx></w:drawing></mc:Choice><mc:Fallback><w:pict><v:textbox>{box}</v:textbox></w:pict></mc:Fallback>"
            "</mc:AlternateContent></w:r>" + run("Its end.")
        )
        + paragraph("The Letter", "Chapter") + paragraph(LETTER)
    )  # fmt: skip
    separator = f'<w:footnote w:type="separator" w:id="0">{paragraph("")}</w:footnote>'
    parts = {
        "footnotes": f'{separator}<w:footnote w:id="2">{paragraph("In 1871.")}</w:footnote>',
        "endnotes": f'<w:endnote w:id="2">{paragraph("By a week.")}</w:endnote>',
        "comments": f'<w:comment w:id="1">{paragraph("Is that so?")}</w:comment>',
    }
    text = "The Ice\nIt froze[1] early[2].\nA paragraph. Its end.\nA box beside it.\n[1] In 1871.\n[2] By a week."
    pages = [("The Ice", text), ("The Letter", f"The Letter\n{LETTER}")]
    write_document("docx", "notes_and_boxes.docx", docx(body, parts), pages)

    field = (
        '<w:r><w:fldChar w:fldCharType="begin"/></w:r><w:r><w:instrText> REF _a \\h </w:instrText></w:r>'
        '<w:r><w:fldChar w:fldCharType="separate"/></w:r>'
    )
    body = (
        paragraph(run("Shown, ") + run("not shown, ", "<w:vanish/>") + run("nor this, ", '<w:rStyle w:val="Secret"/>')
                  + run("but this", '<w:vanish w:val="0"/>') + run("."))
        + paragraph(run("See ") + field + run("chapter 2") + '<w:r><w:fldChar w:fldCharType="end"/></w:r>' + run("."))
        + paragraph(run("left") + "<w:r><w:tab/></w:r>" + run("right") + "<w:r><w:br/></w:r>" + run("well") +
                    "<w:r><w:noBreakHyphen/></w:r>" + run("known so") + "<w:r><w:softHyphen/></w:r>" + run("ft"))
        + "<w:sdt><w:sdtPr><w:showingPlcHdr/></w:sdtPr>"
        + f"<w:sdtContent>{paragraph('Click to enter text.')}</w:sdtContent></w:sdt>"
        + f"<w:sdt><w:sdtPr/><w:sdtContent>{paragraph('Filled in.')}</w:sdtContent></w:sdt>"
        + paragraph(run("So that ") + "<m:oMath><m:f><m:num><m:r><m:t>a+b</m:t></m:r></m:num><m:den>"
                    "<m:r><m:t>2</m:t></m:r>"
                    "</m:den></m:f><m:r><m:t>=</m:t></m:r><m:sSup><m:e><m:r><m:t>x</m:t></m:r></m:e><m:sup><m:r><m:t>2</m:t>"
                    "</m:r></m:sup></m:sSup></m:oMath>" + run(" holds."))
    )  # fmt: skip
    text = "Shown, but this.\nSee chapter 2.\nleft right\nwell-known soft\nFilled in.\nSo that (a+b)/2=x^2 holds."
    write_document("docx", "hidden_text_and_fields.docx", docx(body), [("1", text)])


ODF = (
    'xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" '
    'xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0" '
    'xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0" '
    'xmlns:style="urn:oasis:names:tc:opendocument:xmlns:style:1.0" '
    'xmlns:draw="urn:oasis:names:tc:opendocument:xmlns:drawing:1.0" '
    'xmlns:fo="urn:oasis:names:tc:opendocument:xmlns:xsl-fo-compatible:1.0"'
)
ODF_STYLES = (
    '<style:style style:name="Break"><style:paragraph-properties fo:break-before="page"/></style:style>'
    '<style:style style:name="Secret"><style:text-properties text:display="none"/></style:style>'
    '<text:list-style style:name="L1"><text:list-level-style-bullet text:level="1" text:bullet-char="•"/>'
    '<text:list-level-style-number text:level="2" style:num-format="a" style:num-suffix=")"/></text:list-style>'
    '<text:list-style style:name="L2"><text:list-level-style-number text:level="1" style:num-format="1" '
    'style:num-suffix="."/></text:list-style>'
)


def odt(body: str) -> bytes:
    return zipped(
        {
            "mimetype": "application/vnd.oasis.opendocument.text",
            "content.xml": f'<?xml version="1.0"?><office:document-content {ODF}><office:automatic-styles>{ODF_STYLES}'
            f"</office:automatic-styles><office:body><office:text>{body}</office:text></office:body>"
            "</office:document-content>",
            "META-INF/manifest.xml": '<manifest:manifest xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:'
            'manifest:1.0"><manifest:file-entry manifest:full-path="/"/></manifest:manifest>',
        },
        stored="mimetype",
    )


def open_documents() -> None:
    """OpenDocument texts."""
    item = "<text:list-item><text:p>{}</text:p></text:list-item>"
    body = (
        f'<text:h text:outline-level="1">The Ice</text:h><text:p>The river had<text:s text:c="3"/>frozen<text:note '
        'text:note-class="footnote"><text:note-citation>1</text:note-citation><text:note-body><text:p>In 1871.</text:p>'
        "</text:note-body></text:note> over.</text:p>"
        f'<text:list text:style-name="L1">{item.format("bread,")}<text:list-item><text:p>salt:</text:p><text:list>'
        f"{item.format('coarse')}{item.format('fine')}</text:list></text:list-item></text:list>"
        f'<text:list text:style-name="L2">{item.format("one")}{item.format("two")}</text:list><text:p>Between.</text:p>'
        f'<text:list text:style-name="L2" text:continue-numbering="true">{item.format("three")}</text:list>'
        f'<text:h text:outline-level="2">By night</text:h><text:p>{MARKET}</text:p>'
        f'<text:h text:outline-level="1">The Letter</text:h><text:p>{LETTER}</text:p>'
    )
    text = (
        "The Ice\nThe river had frozen[1] over.\n• bread,\n• salt:\na) coarse\nb) fine\n1. one\n2. two\nBetween.\n"
        f"3. three\nBy night\n{MARKET}\n[1] In 1871."
    )
    write_document(
        "odt", "headings_lists_notes.odt", odt(body), [("The Ice", text), ("The Letter", f"The Letter\n{LETTER}")]
    )

    row = "<table:table-row>{}</table:table-row>"
    cells = "<table:table-cell><text:p>{}</text:p></table:table-cell>"
    body = (
        '<text:tracked-changes><text:changed-region><text:deletion><text:p>Deleted.</text:p></text:deletion>'
        "</text:changed-region></text:tracked-changes><text:p>Kept<text:change/>, <text:span text:style-name="
        '"Secret">hidden, </text:span>and shown.<office:annotation><text:p>Is it?</text:p></office:annotation>'
        '<draw:frame><draw:text-box><text:p>In a box.</text:p></draw:text-box></draw:frame></text:p><table:table>'
        f"<table:table-header-rows>{row.format(cells.format('Pier') + cells.format('Depth'))}</table:table-header-rows>"
        f"{row.format(cells.format('North') + '<table:covered-table-cell/>' + cells.format('2 fathoms'))}</table:table>"
        f'<text:section><text:p text:style-name="Break">{RIVER}</text:p></text:section>'
    )  # fmt: skip
    text = "Kept, and shown.\nIn a box.\nPier | Depth\nNorth | | 2 fathoms"
    write_document("odt", "changes_tables_boxes.odt", odt(body), [("1", text), ("2", RIVER)])


if __name__ == "__main__":
    word_structure()
    word_beside_the_text()
    open_documents()
