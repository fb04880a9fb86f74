"""Makes the corpus's PDFs about whole pages: turned, scanned, filled in, without a usable text layer; lists and code.

Run by hand. Names that end in `_held` were kept back until the reader was done.
"""

from __future__ import annotations

import io
import random
from pathlib import Path

from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont as FontFile
from PIL import Image, ImageDraw, ImageFont
from pypdf import PdfWriter
from pypdf.generic import (
    ArrayObject,
    DecodedStreamObject,
    DictionaryObject,
    FloatObject,
    NameObject,
    NumberObject,
    TextStringObject,
)
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from typesetting import (
    CORPUS,
    HEIGHT,
    LEFT,
    PASSAGES,
    RIGHT,
    TOP,
    WIDTH,
    draw,
    draw_lines,
    paragraph,
    register_fonts,
    save,
    wrap,
    write_right_text,
)

_LIBERATION = "/usr/share/fonts/truetype/liberation/LiberationSans-Regular.ttf"


def turned() -> None:
    """Pages and texts at right angles."""

    def turned_text(canvas, degrees, passage):
        canvas.saveState()
        if degrees == 90:
            canvas.translate(WIDTH, 0)
        elif degrees == 180:
            canvas.translate(WIDTH, HEIGHT)
        else:
            canvas.translate(0, HEIGHT)
        canvas.rotate(degrees)
        draw_lines(canvas, wrap(PASSAGES[passage], "Serif", 10, 300), 50, 300)
        canvas.restoreState()
        return [PASSAGES[passage]]

    def turn(path: Path, degrees: int) -> None:
        writer = PdfWriter(clone_from=path)
        writer.pages[0].rotate(degrees)
        writer.write(path)

    turn(save("turned", "page_90", lambda canvas: turned_text(canvas, 90, 5)), 90)
    save("turned", "text_90", lambda canvas: turned_text(canvas, 90, 9))
    turn(save("turned", "page_180_held", lambda canvas: turned_text(canvas, 180, 10)), 180)
    save("turned", "text_270_held", lambda canvas: turned_text(canvas, 270, 6))

    def stamp(canvas):
        canvas.saveState()
        canvas.translate(20, 200)
        canvas.rotate(90)
        draw(canvas, "Preprint 2024.01234 of March", 0, 0, "Serif", 14)
        canvas.restoreState()
        paragraph(canvas, PASSAGES[13], TOP)
        return [f"{PASSAGES[13]}\nPreprint 2024.01234 of March"]

    save("turned", "stamp_in_the_margin", stamp)


def _scan(lines: list[str], skew: float = 0.0) -> ImageReader:
    image = Image.new("L", (int(WIDTH), int(HEIGHT)), 250)
    pen = ImageDraw.Draw(image)
    font = ImageFont.truetype(_LIBERATION, 10)
    for number, line in enumerate(lines):
        pen.text((LEFT, HEIGHT - TOP - 10 + 14 * number), line, fill=20, font=font)
    data = io.BytesIO()
    image.rotate(skew, fillcolor=250).convert("1").save(data, "PNG")
    return ImageReader(data)


def scans() -> None:
    """Pictures of pages, with and without an invisible text layer."""

    def layer(canvas, lines, x, jitter, seed):
        chance = random.Random(seed)
        for number, line in enumerate(lines):
            place = x
            for word in line.split():
                text = canvas.beginText(place, TOP - 14 * number + chance.uniform(-jitter, jitter))
                text.setFont("Sans", 10)
                text.setTextRenderMode(3)
                wide = pdfmetrics.stringWidth(word, "Sans", 10)
                text.textOut(f"{word} ")
                canvas.drawText(text)
                place += wide + pdfmetrics.stringWidth(" ", "Sans", 10) + chance.uniform(-0.3, 0.3)

    def recognised(canvas):
        lines = wrap(PASSAGES[6], "Sans", 10, RIGHT - LEFT)
        canvas.drawImage(_scan(lines), 0, 0)
        layer(canvas, lines, LEFT, 1.2, 3)
        return [PASSAGES[6]]

    def pictures_between(canvas):
        paragraph(canvas, PASSAGES[0], TOP)
        canvas.showPage()
        canvas.drawImage(_scan(wrap(PASSAGES[1], "Sans", 10, RIGHT - LEFT)), 0, 0)
        canvas.showPage()
        paragraph(canvas, PASSAGES[2], TOP)
        return [PASSAGES[0], "", PASSAGES[2]]

    def recognised_columns(canvas):
        width = (RIGHT - LEFT - 20) / 2
        columns = [wrap(PASSAGES[number], "Sans", 10, width)[:24] for number in (3, 8)]
        canvas.drawImage(_scan(columns[0]), 0, 0)
        for position, lines in enumerate(columns):
            layer(canvas, lines, LEFT + position * (width + 20), 1.0, position)
        return ["\n".join(" ".join(lines) for lines in columns)]

    save("scans", "invisible_layer", recognised)
    save("scans", "picture_between_pages", pictures_between)
    save("scans", "invisible_layer_in_columns_held", recognised_columns)


def forms() -> None:
    """Filled-in forms, and notes typed onto the page."""

    def form(canvas, entries, heading):
        draw(canvas, heading, LEFT, TOP, "SansBold", 13)
        texts = [heading]
        for number, (label, value) in enumerate(entries):
            y = TOP - 34 - 26 * number
            draw(canvas, label, LEFT, y, "Sans", 10)
            canvas.acroForm.textfield(
                name=label,
                value=value,
                x=LEFT + 80,
                y=y - 5,
                width=200,
                height=18,
                fontSize=10,
                borderWidth=0,
                forceBorder=False,
            )
            texts.append(f"{label} {value}")
        return ["\n".join(texts)]

    save(
        "forms",
        "filled_in",
        lambda canvas: form(
            canvas, [("Name:", "Oscar Wilde"), ("Born:", "16 October 1854"), ("Town:", "Dublin")], "Application form"
        ),
    )
    save(
        "forms",
        "order_held",
        lambda canvas: form(canvas, [("Article:", "Ruby, large"), ("Number:", "2"), ("Price:", "1,200.00")], "Order"),
    )

    path = save(
        "forms",
        "typed_note",
        lambda canvas: [paragraph(canvas, PASSAGES[4], TOP) and f"{PASSAGES[4]}\nApproved by the Mayor"],
    )
    writer = PdfWriter(clone_from=path)
    appearance = DecodedStreamObject()
    appearance.set_data(b"BT /F1 11 Tf 4 6 Td (Approved by the Mayor) Tj ET")
    font = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Font"),
            NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Helvetica"),
        }
    )
    appearance.update(
        {
            NameObject("/Type"): NameObject("/XObject"),
            NameObject("/Subtype"): NameObject("/Form"),
            NameObject("/BBox"): ArrayObject(map(FloatObject, (0, 0, 200, 20))),
            NameObject("/Resources"): DictionaryObject(
                {NameObject("/Font"): DictionaryObject({NameObject("/F1"): font})}
            ),
        }
    )
    note = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Annot"),
            NameObject("/Subtype"): NameObject("/FreeText"),
            NameObject("/Rect"): ArrayObject(map(FloatObject, (LEFT, 200, LEFT + 200, 220))),
            NameObject("/F"): NumberObject(4),
            NameObject("/Contents"): TextStringObject("Approved by the Mayor"),
            NameObject("/DA"): TextStringObject("/Helv 11 Tf 0 g"),
            NameObject("/AP"): DictionaryObject({NameObject("/N"): writer._add_object(appearance)}),
        }
    )
    writer.pages[0][NameObject("/Annots")] = ArrayObject([writer._add_object(note)])
    writer.write(path)


def garbled() -> None:
    """Fonts that do not say which characters their glyphs are, alone and among others that do."""

    def unmapped(name: str, pages: list[tuple[str, bool]], to_unicode: bool = False) -> None:
        """Pages of text, each in a font of numbered glyphs or, where its second value says so, in a standard one."""
        file = FontFile(_LIBERATION)
        cmap = file.getBestCmap()
        glyph_ids = {
            character: file.getGlyphID(cmap[ord(character)])
            for text, _ in pages
            for character in text
            if ord(character) in cmap
        }
        options = Options(retain_gids=True, notdef_outline=True, hinting=False, layout_features=[])
        options.drop_tables += ["FFTM", "GSUB", "GPOS", "GDEF", "name", "post", "OS/2"]
        subsetter = Subsetter(options)
        subsetter.populate(gids=list(glyph_ids.values()))
        widths = {
            number: round(file["hmtx"][file.getGlyphName(number)][0] * 1000 / file["head"].unitsPerEm)
            for number in glyph_ids.values()
        }
        subsetter.subset(file)
        del file["cmap"]
        data = io.BytesIO()
        file.save(data)
        writer = PdfWriter()
        program = DecodedStreamObject()
        program.set_data(data.getvalue())
        descriptor = DictionaryObject(
            {
                NameObject("/Type"): NameObject("/FontDescriptor"),
                NameObject("/FontName"): NameObject("/AAAAAA+Unknown"),
                NameObject("/Flags"): NumberObject(4),
                NameObject("/FontBBox"): ArrayObject(map(NumberObject, (-500, -300, 1300, 1000))),
                NameObject("/ItalicAngle"): NumberObject(0),
                NameObject("/Ascent"): NumberObject(905),
                NameObject("/Descent"): NumberObject(-212),
                NameObject("/CapHeight"): NumberObject(729),
                NameObject("/StemV"): NumberObject(80),
                NameObject("/FontFile2"): writer._add_object(program.flate_encode()),
            }
        )
        descendant = DictionaryObject(
            {
                NameObject("/Type"): NameObject("/Font"),
                NameObject("/Subtype"): NameObject("/CIDFontType2"),
                NameObject("/BaseFont"): NameObject("/AAAAAA+Unknown"),
                NameObject("/CIDToGIDMap"): NameObject("/Identity"),
                NameObject("/CIDSystemInfo"): DictionaryObject(
                    {
                        NameObject("/Registry"): TextStringObject("Adobe"),
                        NameObject("/Ordering"): TextStringObject("Identity"),
                        NameObject("/Supplement"): NumberObject(0),
                    }
                ),
                NameObject("/FontDescriptor"): writer._add_object(descriptor),
                NameObject("/W"): ArrayObject(
                    [
                        item
                        for number, wide in sorted(widths.items())
                        for item in (NumberObject(number), ArrayObject([NumberObject(wide)]))
                    ]
                ),
            }
        )
        font = DictionaryObject(
            {
                NameObject("/Type"): NameObject("/Font"),
                NameObject("/Subtype"): NameObject("/Type0"),
                NameObject("/BaseFont"): NameObject("/AAAAAA+Unknown"),
                NameObject("/Encoding"): NameObject("/Identity-H"),
                NameObject("/DescendantFonts"): ArrayObject([writer._add_object(descendant)]),
            }
        )
        known = DictionaryObject(
            {
                NameObject("/Type"): NameObject("/Font"),
                NameObject("/Subtype"): NameObject("/Type1"),
                NameObject("/BaseFont"): NameObject("/Times-Roman"),
                NameObject("/Encoding"): NameObject("/WinAnsiEncoding"),
            }
        )
        fonts = {NameObject("/F1"): writer._add_object(font), NameObject("/F2"): writer._add_object(known)}
        for text, is_known in pages:
            page = writer.add_blank_page(WIDTH, HEIGHT)
            shown = []
            for line in wrap(text, "Serif", 11, RIGHT - LEFT):
                code = (
                    line.encode("cp1252").hex()
                    if is_known
                    else "".join(f"{glyph_ids[c]:04x}" for c in line if c in glyph_ids)
                )
                shown.append(f"<{code}> Tj T*")
            content = DecodedStreamObject()
            content.set_data(f"BT /F{2 if is_known else 1} 10 Tf 14 TL {LEFT} {TOP} Td {' '.join(shown)} ET".encode())
            page[NameObject("/Contents")] = writer._add_object(content)
            page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): DictionaryObject(fonts)})
        folder = CORPUS / "garbled"
        folder.mkdir(parents=True, exist_ok=True)
        writer.write(folder / f"{name}.pdf")
        write_right_text(folder / f"{name}.pdf", [text if is_known else "" for text, is_known in pages])

    unmapped("every_page", [(PASSAGES[4], False), (PASSAGES[5], False)])
    unmapped("one_page_of_two", [(PASSAGES[6], False), (PASSAGES[7], True)])
    unmapped("one_of_three_held", [(PASSAGES[8], True), (PASSAGES[9], False), (PASSAGES[10], True)])

    # A font that is embedded in part, with the table that names its glyphs taken out; its numbers are those of ASCII.
    def embedded(canvas):
        paragraph(canvas, PASSAGES[12], TOP, font="Embedded")
        return [PASSAGES[12]]

    path = save("garbled", "numbered_as_ascii_held", embedded)
    writer = PdfWriter(clone_from=path)
    for font in writer.pages[0]["/Resources"]["/Font"].values():
        font.get_object().pop("/ToUnicode", None)
    writer.write(path)

    def plain(canvas):
        paragraph(canvas, "CMD XKCD QRS-17 TTL 3.3V PWR GND MISO MOSI SCLK NSS " * 5, TOP, font="Sans")
        return ["CMD XKCD QRS-17 TTL 3.3V PWR GND MISO MOSI SCLK NSS " * 5]

    save("garbled", "abbreviations_are_text", plain)


def lists_and_code() -> None:
    """Lists, programs, tables of contents, bibliographies, an index."""

    def bullets(canvas):
        entries = [
            "A reed that bows",
            "A swallow that flies to Egypt when the others have long gone, and stays for a prince who cannot sleep",
            "A prince",
        ]
        y = TOP
        for entry in entries:
            draw(canvas, "\u2022", LEFT, y)
            y = draw_lines(canvas, wrap(entry, "Serif", 10, 250), LEFT + 14, y) - 2
        for number, entry in enumerate(entries, start=1):
            draw(canvas, f"{number}.", LEFT, y)
            y = draw_lines(canvas, wrap(entry, "Serif", 10, 250), LEFT + 18, y) - 2
        return [
            "\n".join(
                [*(f"\u2022 {entry}" for entry in entries), *(f"{n}. {entry}" for n, entry in enumerate(entries, 1))]
            )
        ]

    def code(canvas):
        lines = [
            "def flight(swallow, days):",
            "    if days > 3:",
            "        return swallow.rest()   # it is cold",
            "    for day in range(days):",
            "        swallow.fly(day)        # to Egypt",
            "    return swallow",
        ]
        y = paragraph(canvas, PASSAGES[0], TOP) - 6
        for line in lines:
            indent = len(line) - len(line.lstrip())
            draw(canvas, line.lstrip(), LEFT + 6 * 0.9 * indent, y, "Mono", 9)
            y -= 12
        paragraph(canvas, PASSAGES[1], y - 6)
        return ["\n".join([PASSAGES[0], *lines, PASSAGES[1]])]

    def contents(canvas):
        entries = [("1 The Statue", "1"), ("1.1 The Column", "3"), ("2 The Swallow", "12"), ("3 The Foundry", "27")]
        draw(canvas, "Contents", LEFT, TOP, "SerifBold", 14)
        for number, (title, page) in enumerate(entries):
            y = TOP - 26 - 15 * number
            draw(canvas, title, LEFT, y)
            draw(canvas, page, RIGHT - pdfmetrics.stringWidth(page, "Serif", 10), y)
        return ["Contents\n" + "\n".join(f"{title} {page}" for title, page in entries)]

    def bibliography(canvas):
        entries = [
            "Barrow, J. (1887). On the nests of swallows in barns and below bridges. Journal of Birds, 12(3), 44-61.",
            "Hale, M. and Stone, P. (1879). A history of statues. London: Ward.",
            "Reed, A. (1881). Rivers of Egypt and the birds that winter there, with forty plates. Cairo: Nile Press.",
        ]
        y = TOP
        for entry in entries:
            lines = wrap(entry, "Serif", 10, RIGHT - LEFT - 20)
            draw(canvas, lines[0], LEFT, y)
            y = draw_lines(canvas, lines[1:], LEFT + 20, y - 13)
        return ["\n".join(entries)]

    def index(canvas):
        words = [
            "bird, 4, 17",
            "boys, 8",
            "bridge, 9",
            "city, 2, 15",
            "column, 1",
            "daisies, 20",
            "Egypt, 5, 11",
            "foundry, 16",
            "garden, 18",
            "giant, 19",
            "gold, 13",
            "grass, 18",
            "ibis, 12",
            "lead, 4, 16",
            "leaf, 14",
            "match-girl, 10",
            "mayor, 15",
            "moon, 7",
            "nest, 5",
            "Nile, 6",
        ]
        for position in range(2):
            draw_lines(canvas, words[position * 10 : position * 10 + 10], LEFT + 170 * position, TOP, size=9, pitch=12)
        return ["\n".join(words)]

    def verse(canvas):
        lines = [
            "The night has a thousand eyes,",
            "And the day but one;",
            "Yet the light of the bright world dies",
            "With the dying sun.",
            "The mind has a thousand eyes,",
            "And the heart but one;",
            "Yet the light of a whole life dies",
            "When love is done.",
        ]
        draw(canvas, "The Night Has a Thousand Eyes", LEFT, TOP, "SerifBold", 12)
        draw_lines(canvas, lines, LEFT + 20, TOP - 24)
        return ["The Night Has a Thousand Eyes\n" + "\n".join(lines)]

    save("lists_and_code", "bullets_and_numbers", bullets)
    save("lists_and_code", "program", code)
    save("lists_and_code", "contents", contents)
    save("lists_and_code", "bibliography_held", bibliography)
    save("lists_and_code", "index_in_columns_held", index)
    save("lists_and_code", "verse_held", verse)


if __name__ == "__main__":
    register_fonts()
    turned()
    scans()
    forms()
    garbled()
    lists_and_code()
