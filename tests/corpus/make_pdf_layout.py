"""Makes the corpus's PDFs about where text stands: columns, tables, figures, running headers. Run by hand.

Names that end in `_held` were kept back until the reader was done.
"""

from __future__ import annotations

import random

from reportlab.lib.pagesizes import A4
from typesetting import (
    BOTTOM,
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
)

GUTTER = 18
COLUMN = (RIGHT - LEFT - GUTTER) / 2
SECOND = LEFT + COLUMN + GUTTER


def columns() -> None:
    """Two and three columns, drawn in several orders."""
    left, right = wrap(PASSAGES[2], "Serif", 9, COLUMN), wrap(PASSAGES[3], "Serif", 9, COLUMN)

    def row_by_row(canvas):
        for row in range(max(len(left), len(right))):
            for lines, x in ((left, LEFT), (right, SECOND)):
                if row < len(lines):
                    draw(canvas, lines[row], x, TOP - 12 * row, "Serif", 9)
        return [f"{PASSAGES[2]}\n{PASSAGES[3]}"]

    def in_order(canvas):
        draw(canvas, "On Statues and Streets", LEFT + 60, TOP + 20, "SerifBold", 15)
        for text, x in ((PASSAGES[2], LEFT), (PASSAGES[6], SECOND)):
            draw_lines(canvas, wrap(text, "Serif", 9, COLUMN), x, TOP - 10, "Serif", 9, 12, COLUMN)
        return [f"On Statues and Streets\n{PASSAGES[2]}\n{PASSAGES[6]}"]

    def staggered(canvas):
        for text, x, shift in ((PASSAGES[8], LEFT, 0), (PASSAGES[9], SECOND, 5.3)):
            draw_lines(canvas, wrap(text, "Serif", 9, COLUMN), x, TOP - shift, "Serif", 9, 12)
        return [f"{PASSAGES[8]}\n{PASSAGES[9]}"]

    def interleaved(canvas):
        pieces = [
            (word_lines[row], x, TOP - 12 * row)
            for word_lines, x in ((left, LEFT), (right, SECOND))
            for row in range(len(word_lines))
        ]
        random.Random(5).shuffle(pieces)
        for text, x, y in pieces:
            draw(canvas, text, x, y, "Serif", 9)
        return [f"{PASSAGES[2]}\n{PASSAGES[3]}"]

    def between_paragraphs(canvas):
        y = paragraph(canvas, PASSAGES[0], TOP)
        top = y - 8
        ends = [
            draw_lines(canvas, wrap(PASSAGES[number], "Serif", 9, COLUMN), x, top, "Serif", 9, 12)
            for number, x in ((4, LEFT), (7, SECOND))
        ]
        paragraph(canvas, PASSAGES[11], min(ends) - 10)
        return ["\n".join(PASSAGES[number] for number in (0, 4, 7, 11))]

    def three(canvas):
        width = (A4[0] - 100 - 2 * 16) / 3
        for position, number in enumerate((5, 6, 10)):
            lines = wrap(PASSAGES[number], "Sans", 9, width)
            draw_lines(canvas, lines, 50 + position * (width + 16), 700, "Sans", 9, 12)
        return ["\n".join(PASSAGES[number] for number in (5, 6, 10))]

    def three_rows(canvas):
        width = (A4[0] - 100 - 2 * 16) / 3
        draw(canvas, "News of the Town", 50, 740, "SansBold", 18)
        texts = [wrap(PASSAGES[number], "Serif", 9, width) for number in (1, 9, 13)]
        for row in range(max(map(len, texts))):
            for position, lines in enumerate(texts):
                if row < len(lines):
                    draw(canvas, lines[row], 50 + position * (width + 16), 700 - 12 * row, "Serif", 9)
        return ["\n".join(["News of the Town", *(PASSAGES[number] for number in (1, 9, 13))])]

    def unbalanced(canvas):
        draw_lines(canvas, wrap(f"{PASSAGES[6]} {PASSAGES[10]}", "Serif", 9, COLUMN), LEFT, TOP, "Serif", 9, 12, COLUMN)
        draw_lines(canvas, wrap(PASSAGES[12], "Serif", 9, COLUMN), SECOND, TOP, "Serif", 9, 12, COLUMN)
        return [f"{PASSAGES[6]} {PASSAGES[10]}\n{PASSAGES[12]}"]

    def with_headings(canvas):
        for x, parts in (
            (LEFT, (("1 The Statue", 0), ("2 The Palace", 1))),
            (SECOND, (("3 The River", 4), ("4 Egypt", 7))),
        ):
            y = TOP
            for heading, number in parts:
                draw(canvas, heading, x, y, "SansBold", 11)
                y = draw_lines(canvas, wrap(PASSAGES[number], "Serif", 9, COLUMN), x, y - 16, "Serif", 9, 12) - 12
        parts = [("1 The Statue", 0), ("2 The Palace", 1), ("3 The River", 4), ("4 Egypt", 7)]
        return ["\n".join(f"{heading}\n{PASSAGES[number]}" for heading, number in parts)]

    def heading_below(canvas):
        ends = [
            draw_lines(canvas, wrap(PASSAGES[number], "Serif", 9, COLUMN), x, TOP, "Serif", 9, 12)
            for number, x in ((5, LEFT), (3, SECOND))
        ]
        draw(canvas, "Conclusion", LEFT, min(ends) - 12, "SerifBold", 13)
        paragraph(canvas, PASSAGES[10], min(ends) - 32)
        return [f"{PASSAGES[5]}\n{PASSAGES[3]}\nConclusion\n{PASSAGES[10]}"]

    save("columns", "row_by_row", row_by_row)
    save("columns", "heading_below", heading_below)
    save("columns", "in_order_with_title", in_order)
    save("columns", "staggered", staggered)
    save("columns", "any_order", interleaved)
    save("columns", "between_paragraphs", between_paragraphs)
    save("columns", "three", three, A4)
    save("columns", "three_row_by_row_held", three_rows, A4)
    save("columns", "unbalanced_held", unbalanced)
    save("columns", "headings_held", with_headings)


YEARS = [
    ["Year", "Wheat", "Barley", "Oats"],
    ["1921", "17.2", "33.8", "51.0"],
    ["1922", "18.1", "34.0", "52.2"],
    ["1923", "16.4", "31.9", "49.7"],
    ["1924", "19.0", "35.5", "53.8"],
]
BIRDS = [
    ["Bird", "Home", "Food"],
    ["Swallow", "Barns and bridges", "Flies caught in the air"],
    ["Ibis", "Banks of the Nile", "Gold-fish and frogs"],
    ["Stork", "Roofs of old towns", "Mice and beetles"],
    ["Linnet", "Peach-trees in gardens", "Seeds of thistles"],
]


def _rows(table: list[list[str]]) -> str:
    return "\n".join(" | ".join(row) for row in table)


def _draw_table(canvas, table, xs, y, by_columns=False, pitch=16.0, size=10.0) -> float:
    cells = [(row, column) for row in range(len(table)) for column in range(len(table[0]))]
    if by_columns:
        cells.sort(key=lambda cell: (cell[1], cell[0]))
    for row, column in cells:
        if table[row][column]:
            draw(canvas, table[row][column], xs[column], y - pitch * row, "Sans", size)
    return y - pitch * len(table)


def tables() -> None:
    """Tables with and without rules."""

    def numbers(canvas):
        y = paragraph(canvas, PASSAGES[0], TOP) - 8
        y = _draw_table(canvas, YEARS, (LEFT, LEFT + 80, LEFT + 160, LEFT + 240), y)
        paragraph(canvas, PASSAGES[4], y - 8)
        return [f"{PASSAGES[0]}\n{_rows(YEARS)}\n{PASSAGES[4]}"]

    def words(canvas):
        draw(canvas, "Table 1. Birds of the city", LEFT, TOP, "SerifBold", 10)
        _draw_table(canvas, BIRDS, (LEFT, LEFT + 70, LEFT + 200), TOP - 24)
        return [f"Table 1. Birds of the city\n{_rows(BIRDS)}"]

    def ruled_wrapped(canvas):
        xs, widths = (LEFT, LEFT + 80, LEFT + 210), (74, 124, 120)
        table = [
            ["Name", "What it is made of", "Where it stands"],
            [
                "Prince",
                "Leaves of fine gold over lead, with two bright sapphires",
                "On a tall column high above the city",
            ],
            ["Mayor", "Nothing worth melting, as the overseer of the foundry said", "In the market place"],
        ]
        y = TOP
        for row in table:
            lines = [wrap(text, "Sans", 9, width) for text, width in zip(row, widths, strict=True)]
            for x, cell in zip(xs, lines, strict=True):
                draw_lines(canvas, cell, x, y, "Sans", 9, 11)
            below = y - 11 * max(map(len, lines)) + 4
            canvas.setLineWidth(0.5)
            canvas.line(LEFT - 4, below, RIGHT, below)
            y = below - 14
        for x in (LEFT - 4, *(x - 4 for x in xs[1:]), RIGHT):
            canvas.line(x, TOP + 12, x, y + 14)
        canvas.line(LEFT - 4, TOP + 12, RIGHT, TOP + 12)
        return [_rows(table)]

    def by_columns(canvas):
        _draw_table(canvas, YEARS, (LEFT, LEFT + 80, LEFT + 160, LEFT + 240), TOP, by_columns=True)
        return [_rows(YEARS)]

    def with_empty_cells(canvas):
        table = [
            ["Port", "Ships", "Cargo"],
            ["Cairo", "12", "Ivory"],
            ["Thebes", "", "Amber"],
            ["Memphis", "7", ""],
            ["Heliopolis", "31", "Linen"],
        ]
        y = paragraph(canvas, PASSAGES[11], TOP) - 8
        _draw_table(canvas, table, (LEFT, LEFT + 120, LEFT + 200), y)
        return [f"{PASSAGES[11]}\n{_rows(table)}"]

    def key_and_prose(canvas):
        table = [
            ["Term", "Meaning"],
            ["swallow", PASSAGES[0][:150].rsplit(" ", 1)[0]],
            ["reed", PASSAGES[1][:140].rsplit(" ", 1)[0]],
            ["prince", PASSAGES[7][:160].rsplit(" ", 1)[0]],
        ]
        y = TOP
        for key, text in table:
            draw(canvas, key, LEFT, y, "SerifBold", 10)
            y = draw_lines(canvas, wrap(text, "Serif", 10, RIGHT - LEFT - 80), LEFT + 80, y) - 8
        return [_rows(table)]

    def two_tables(canvas):
        y = _draw_table(canvas, YEARS, (LEFT, LEFT + 90, LEFT + 170, LEFT + 250), TOP)
        y = paragraph(canvas, PASSAGES[12], y - 6) - 8
        _draw_table(canvas, BIRDS, (LEFT, LEFT + 80, LEFT + 210), y, size=9)
        return [f"{_rows(YEARS)}\n{PASSAGES[12]}\n{_rows(BIRDS)}"]

    save("tables", "numbers_without_rules", numbers)
    save("tables", "words_without_rules", words)
    save("tables", "ruled_with_wrapped_cells", ruled_wrapped)
    save("tables", "drawn_by_columns", by_columns)
    save("tables", "empty_cells_held", with_empty_cells)
    save("tables", "key_and_prose_held", key_and_prose)
    save("tables", "two_tables_held", two_tables)


def figures() -> None:
    """Figures whose labels stand among the text."""

    def between(canvas):
        y = paragraph(canvas, PASSAGES[5], TOP) - 10
        canvas.rect(LEFT + 20, y - 90, 90, 60)
        canvas.rect(LEFT + 180, y - 90, 90, 60)
        canvas.line(LEFT + 110, y - 60, LEFT + 180, y - 60)
        draw(canvas, "Input", LEFT + 40, y - 62, "Sans", 8)
        draw(canvas, "Output", LEFT + 205, y - 62, "Sans", 8)
        draw(canvas, "Figure 1: From one to the other", LEFT + 60, y - 110, "Serif", 9)
        paragraph(canvas, PASSAGES[12], y - 136)
        return [f"{PASSAGES[5]}\nInput\nOutput\nFigure 1: From one to the other\n{PASSAGES[12]}"]

    def chart(canvas):
        y = paragraph(canvas, PASSAGES[0], TOP) - 10
        for number, (name, height) in enumerate((("1921", 40), ("1922", 70), ("1923", 55))):
            canvas.rect(LEFT + 60 + 60 * number, y - 100, 30, height, fill=1)
            draw(canvas, name, LEFT + 64 + 60 * number, y - 112, "Sans", 8)
        canvas.saveState()
        canvas.translate(LEFT + 30, y - 90)
        canvas.rotate(90)
        draw(canvas, "Bushels of wheat", 0, 0, "Sans", 8)
        canvas.restoreState()
        paragraph(canvas, PASSAGES[7], y - 140)
        return [f"{PASSAGES[0]}\n1921 1922 1923\n{PASSAGES[7]}\nBushels of wheat"]

    def beside(canvas):
        lines = wrap(PASSAGES[6], "Serif", 10, COLUMN)
        draw_lines(canvas, lines, LEFT, TOP)
        canvas.circle(SECOND + COLUMN / 2, TOP - 60, 50)
        draw(canvas, "Moon", SECOND + COLUMN / 2 - 12, TOP - 62, "Sans", 8)
        draw(canvas, "Figure 2. A full moon", SECOND + 30, TOP - 130, "Serif", 9)
        return [f"{PASSAGES[6]}\nMoon\nFigure 2. A full moon"]

    save("figures", "labels_between_paragraphs", between)
    save("figures", "chart_with_turned_label", chart)
    save("figures", "beside_text_held", beside)


def running_lines() -> None:
    """Headers, footers and page numbers, and real text that looks like them."""

    def header_and_number(canvas):
        pages = []
        for number in range(4):
            draw(canvas, "A Handbook of Swallows", LEFT + 90, TOP + 26, "Serif", 8)
            paragraph(canvas, PASSAGES[number], TOP)
            draw(canvas, str(number + 11), WIDTH / 2, BOTTOM - 20, "Serif", 9)
            pages.append(("A Handbook of Swallows\n" if not number else "") + PASSAGES[number])
            canvas.showPage()
        return pages

    def left_and_right(canvas):
        pages = []
        for number in range(6):
            header = "The Statue and the Bird" if number % 2 else "Oscar Wilde"
            draw(canvas, header, LEFT if number % 2 else RIGHT - 60, TOP + 26, "Serif", 9)
            paragraph(canvas, PASSAGES[number + 4], TOP)
            pages.append((f"{header}\n" if number < 2 else "") + PASSAGES[number + 4])
            canvas.showPage()
        return pages

    def page_of(canvas):
        pages = []
        for number in range(3):
            paragraph(canvas, PASSAGES[number + 7], TOP)
            draw(canvas, f"Page {number + 1} of 3", RIGHT - 50, BOTTOM - 25, "Sans", 8)
            pages.append(PASSAGES[number + 7])
            canvas.showPage()
        return pages

    def chapters(canvas):
        pages = []
        for number in range(3):
            draw(canvas, f"Chapter {number + 1}", LEFT, TOP + 10, "SansBold", 18)
            paragraph(canvas, PASSAGES[number + 10], TOP - 20)
            pages.append(f"Chapter {number + 1}\n{PASSAGES[number + 10]}")
            canvas.showPage()
        return pages

    def two_part_header(canvas):
        pages = []
        for number in range(4):
            draw(canvas, "Annual report", LEFT, TOP + 26, "Sans", 8)
            draw(canvas, f"{number + 3}", RIGHT - 10, TOP + 26, "Sans", 8)
            canvas.line(LEFT, TOP + 20, RIGHT, TOP + 20)
            paragraph(canvas, PASSAGES[number + 5], TOP)
            draw(canvas, "Confidential", LEFT + 100, BOTTOM - 24, "Sans", 7)
            first = number == 0
            header, footer = ("Annual report 3\n", "\nConfidential") if first else ("", "")
            pages.append(header + PASSAGES[number + 5] + footer)
            canvas.showPage()
        return pages

    def repeated_table_head(canvas):
        pages = []
        for number in range(3):
            table = [
                YEARS[0],
                *(
                    [str(1900 + 10 * number + row), f"{row + number}.5", f"{row}.25", f"{number}.75"]
                    for row in range(8)
                ),
            ]
            _draw_table(canvas, table, (LEFT, LEFT + 80, LEFT + 160, LEFT + 240), TOP)
            draw(canvas, f"- {number + 1} -", WIDTH / 2, BOTTOM - 20, "Serif", 9)
            pages.append(_rows(table))
            canvas.showPage()
        return pages

    save("running_lines", "header_and_number", header_and_number)
    save("running_lines", "left_and_right_headers", left_and_right)
    save("running_lines", "page_of_pages", page_of)
    save("running_lines", "chapters_stay", chapters)
    save("running_lines", "two_part_header_held", two_part_header)
    save("running_lines", "repeated_table_head_held", repeated_table_head)


if __name__ == "__main__":
    register_fonts()
    columns()
    tables()
    figures()
    running_lines()
