"""Makes the corpus's PDFs about how letters are drawn: twice, broken, joined, spaced, from the right. Run by hand.

Names that end in `_held` were kept back until the reader was done.
"""

from __future__ import annotations

from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from typesetting import (
    BOTTOM,
    LEFT,
    PASSAGES,
    RIGHT,
    TOP,
    draw,
    draw_lines,
    paragraph,
    register_fonts,
    save,
    sentences,
    wrap,
)

WIDE = RIGHT - LEFT


def drawn_twice() -> None:
    """Fake bold, shadows, lines drawn twice."""

    def glyph_by_glyph(canvas, text, x, y, shifts, size=12.0, font="Serif"):
        for character in text:
            for shift in shifts:
                draw(canvas, character, x + shift[0], y + shift[1], font, size)
            x += pdfmetrics.stringWidth(character, font, size)

    def fake_bold(canvas):
        glyph_by_glyph(canvas, "Summary of results, all in bold", LEFT, TOP, ((0, 0), (0.3, 0)))
        paragraph(canvas, PASSAGES[0], TOP - 24)
        return [f"Summary of results, all in bold\n{PASSAGES[0]}"]

    def line_twice(canvas):
        for _ in range(2):
            draw(canvas, "The Happy Prince and Other Tales", LEFT, TOP, "SerifBold", 14)
        paragraph(canvas, PASSAGES[1], TOP - 24)
        return [f"The Happy Prince and Other Tales\n{PASSAGES[1]}"]

    def shadow(canvas):
        draw(canvas, "A title with a shadow", LEFT + 1, TOP - 1, "SansBold", 20)
        draw(canvas, "A title with a shadow", LEFT, TOP, "SansBold", 20)
        paragraph(canvas, PASSAGES[4], TOP - 30)
        return [f"A title with a shadow\n{PASSAGES[4]}"]

    def four_times(canvas):
        draw(canvas, "Mind the", LEFT, TOP, "Serif", 11)
        glyph_by_glyph(
            canvas, "llama, Anna, and 1100 bees", LEFT + 50, TOP, ((0, 0), (0.25, 0), (0, 0.25), (0.25, 0.25)), 11
        )
        paragraph(canvas, PASSAGES[7], TOP - 24)
        return [f"Mind the llama, Anna, and 1100 bees\n{PASSAGES[7]}"]

    save("drawn_twice", "fake_bold", fake_bold)
    save("drawn_twice", "line_twice", line_twice)
    save("drawn_twice", "shadow", shadow)
    save("drawn_twice", "four_times_held", four_times)


def broken_words() -> None:
    """Hyphens at the ends of lines and pages."""

    def across_lines(canvas):
        lines = [
            "The most remark-",
            "able thing about the small",
            "swallow was its incred-",
            "ible courage and its well-",
            "meant advice, which nobody fol-",
            "lowed in the end.",
        ]
        draw_lines(canvas, lines, LEFT, TOP)
        return [
            "The most remarkable thing about the small swallow was its incredible courage and its well-meant advice, "
            "which nobody followed in the end. It was well-meant."
        ]

    def across_lines_with_compound(canvas):
        pages = across_lines(canvas)
        draw(canvas, "It was well-meant.", LEFT, TOP - 100)
        return pages

    def across_pages(canvas):
        draw_lines(
            canvas, [*wrap(sentences(2, 4), "Serif", 10, WIDE), "and in the end he was quite extraor-"], LEFT, TOP
        )
        draw(canvas, "7", LEFT + 150, BOTTOM - 20)
        canvas.showPage()
        draw_lines(canvas, ["dinarily happy with it.", *wrap(PASSAGES[4], "Serif", 10, WIDE)], LEFT, TOP)
        draw(canvas, "8", LEFT + 150, BOTTOM - 20)
        canvas.showPage()
        paragraph(canvas, PASSAGES[5], TOP)
        draw(canvas, "9", LEFT + 150, BOTTOM - 20)
        return [
            f"{sentences(2, 4)} and in the end he was quite extraordinarily",
            f"happy with it. {PASSAGES[4]}",
            PASSAGES[5],
        ]

    def soft(canvas):
        draw_lines(
            canvas,
            [
                "Words may hold soft hy\u00ad",
                "phens that show only where a line ends, and oth\u00ad",
                "ers that do not show at all, as in type\u00adset\u00adting.",
            ],
            LEFT,
            TOP,
            "Wide",
            9,
        )
        return [
            "Words may hold soft hyphens that show only where a line ends, and others that do not show at all, "
            "as in typesetting."
        ]

    def with_footnote(canvas):
        draw_lines(canvas, [*wrap(sentences(6, 3), "Serif", 10, WIDE), "which was the begin-"], LEFT, TOP)
        draw(canvas, "1 This is only a note.", LEFT, BOTTOM + 10, "Serif", 7.5)
        canvas.showPage()
        draw_lines(canvas, ["ning of it all, so they say.", *wrap(PASSAGES[11], "Serif", 10, WIDE)], LEFT, TOP)
        return [
            f"{sentences(6, 3)} which was the beginning\n1 This is only a note.",
            f"of it all, so they say. {PASSAGES[11]}",
        ]

    save("broken_words", "across_lines", across_lines_with_compound)
    save("broken_words", "across_pages", across_pages)
    save("broken_words", "soft_hyphens", soft)
    save("broken_words", "across_pages_with_footnote_held", with_footnote)


def joined_letters() -> None:
    """Ligatures, and accents as glyphs of their own."""
    text = "The official finds five different baffling flights of waffles in the office."

    def ligatures(canvas):
        shown = text.replace("ffi", "\ufb03").replace("ffl", "\ufb04").replace("ff", "\ufb00").replace("fi", "\ufb01")
        draw_lines(canvas, wrap(shown.replace("fl", "\ufb02"), "Wide", 10, WIDE), LEFT, TOP, "Wide")
        return [text]

    def accented(canvas, words, y, font="Serif", size=11.0):
        x = LEFT
        for word in words.split():
            for piece in word.split("|"):
                letter, accent = piece[0], piece[1:]
                draw(canvas, letter, x, y, font, size)
                if accent:
                    shift = (
                        pdfmetrics.stringWidth(letter, font, size) - pdfmetrics.stringWidth(accent, font, size)
                    ) / 2
                    draw(canvas, accent, x + shift, y, font, size)
                x += pdfmetrics.stringWidth(letter, font, size)
            x += 0.25 * size

    def accents(canvas):
        accented(canvas, "c|a|f|e\u00b4 n|a|i\u00a8|v|e G|a|r|c\u00b8|o|n f|e^|t|e v|o|i|l|a` s|e|n\u02dc|o|r", TOP)
        paragraph(canvas, PASSAGES[0], TOP - 24)
        return [f"café naïve Garçon fête voilà señor\n{PASSAGES[0]}"]

    def combining(canvas):
        draw_lines(
            canvas, ["Ein Ma\u0308dchen in Zu\u0308rich, ein cafe\u0301, un garc\u0327on."], LEFT, TOP, "Wide", 10
        )
        paragraph(canvas, PASSAGES[1], TOP - 24)
        return [f"Ein Mädchen in Zürich, ein café, un garçon.\n{PASSAGES[1]}"]

    def mixed(canvas):
        draw_lines(
            canvas,
            wrap(
                "Der \ufb02inke Fußgänger \ufb01ndet žródło, Ægir and the \ufb01sh’s \ufb02at.",
                "Wide",
                10,
                WIDE,
            ),
            LEFT,
            TOP,
            "Wide",
        )
        accented(canvas, "r|e\u00b4|s|u|m|e\u00b4 p|a^|t|e\u00b4", TOP - 40)
        return ["Der flinke Fußgänger findet žródło, Ægir and the fish’s flat.\nrésumé pâté"]

    save("joined_letters", "ligatures", ligatures)
    save("joined_letters", "accents_over_letters", accents)
    save("joined_letters", "combining_marks", combining)
    save("joined_letters", "mixed_held", mixed)


def spacing() -> None:
    """Drop caps, spaced headings, words and glyphs placed one by one."""

    def drop_cap(canvas, passage, letters=1, size=38.0):
        text = PASSAGES[passage]
        wide = pdfmetrics.stringWidth(text[:letters], "Serif", size) + 4
        draw(canvas, text[:letters], LEFT, TOP - 20, "Serif", size)
        lines = wrap(text[letters:], "Serif", 10, WIDE - wide)[:2]
        draw_lines(canvas, lines, LEFT + wide, TOP - 6)
        rest = text[letters:][len(" ".join(lines)) :].strip()
        draw_lines(canvas, wrap(rest, "Serif", 10, WIDE), LEFT, TOP - 33)
        return [text]

    def spaced_heading(canvas):
        text = canvas.beginText(LEFT, TOP)
        text.setFont("Sans", 12)
        text.setCharSpace(4)
        text.textLine("CHAPTER THE FIRST")
        text.setCharSpace(0)
        canvas.drawText(text)
        paragraph(canvas, PASSAGES[3], TOP - 26)
        return [f"CHAPTER THE FIRST\n{PASSAGES[3]}"]

    def by_word(canvas):
        draw_lines(canvas, wrap(PASSAGES[2], "Serif", 10, WIDE), LEFT, TOP, justified_to=WIDE)
        return [PASSAGES[2]]

    def by_glyph(canvas):
        y = TOP
        for line in wrap(PASSAGES[6], "Serif", 10, WIDE):
            x = LEFT
            for character in line:
                if character != " ":
                    draw(canvas, character, x, y)
                x += pdfmetrics.stringWidth(character, "Serif", 10)
            y -= 13
        return [PASSAGES[6]]

    def typed_spaces(canvas):
        draw(canvas, "S E C O N D    P A R T", LEFT, TOP, "SansBold", 12)
        paragraph(canvas, PASSAGES[8], TOP - 26)
        return [f"SECOND PART\n{PASSAGES[8]}"]

    def tracked(canvas):
        text = canvas.beginText(LEFT, TOP)
        text.setFont("Serif", 10)
        text.setCharSpace(0.8)
        for line in wrap(PASSAGES[11], "Serif", 10, WIDE * 0.8):
            text.textLine(line)
        canvas.drawText(text)
        return [PASSAGES[11]]

    save("spacing", "drop_cap", lambda canvas: drop_cap(canvas, 6))
    save("spacing", "spaced_heading", spaced_heading)
    save("spacing", "placed_by_word", by_word)
    save("spacing", "placed_by_glyph", by_glyph)
    save("spacing", "drop_cap_with_quote_held", lambda canvas: drop_cap(canvas, 3, 2))
    save("spacing", "typed_spaces_held", typed_spaces)
    save("spacing", "tracked_text_held", tracked)


def notes() -> None:
    """Footnotes, raised and lowered characters, notes in the margin."""

    def pieces(canvas, parts, x, y, size=10.0):
        for text, rise in parts:
            own = size * 0.65 if rise else size
            draw(canvas, text, x, y + rise * size, "Serif", own)
            x += pdfmetrics.stringWidth(text, "Serif", own)

    def superscripts(canvas):
        pieces(
            canvas,
            [
                ("The area is 10", 0),
                ("2", 0.35),
                (" times 3 m", 0),
                ("2", 0.35),
                (", as E = mc", 0),
                ("2", 0.35),
                (" says.", 0),
            ],
            LEFT,
            TOP,
        )
        pieces(canvas, [("Water is H", 0), ("2", -0.15), ("O and salt is NaCl.", 0)], LEFT, TOP - 16)
        paragraph(canvas, PASSAGES[0], TOP - 40)
        return [f"The area is 10² times 3 m², as E = mc² says.\nWater is H2O and salt is NaCl.\n{PASSAGES[0]}"]

    def footnotes(canvas):
        pieces(
            canvas,
            [("A statue stood here", 0), ("1", 0.35), (" and was melted", 0), ("2", 0.35), (" in the end.", 0)],
            LEFT,
            TOP,
        )
        paragraph(canvas, PASSAGES[5], TOP - 20)
        canvas.line(LEFT, BOTTOM + 34, LEFT + 80, BOTTOM + 34)
        pieces(canvas, [("1", 0.35), (" On a tall column, high above the city.", 0)], LEFT, BOTTOM + 20, 8)
        pieces(canvas, [("2", 0.35), (" In the furnace of the foundry.", 0)], LEFT, BOTTOM + 8, 8)
        return [
            f"A statue stood here¹ and was melted² in the end.\n{PASSAGES[5]}\n"
            "¹ On a tall column, high above the city.\n² In the furnace of the foundry."
        ]

    def equations(canvas):
        y = paragraph(canvas, PASSAGES[1], TOP) - 6
        pieces(canvas, [("a", 0), ("2", 0.35), (" + b", 0), ("2", 0.35), (" = c", 0), ("2", 0.35)], LEFT + 100, y)
        draw(canvas, "(1)", RIGHT - 14, y)
        paragraph(canvas, PASSAGES[4], y - 22)
        return [f"{PASSAGES[1]}\na² + b² = c² (1)\n{PASSAGES[4]}"]

    def margin(canvas):
        draw_lines(canvas, wrap(PASSAGES[9], "Serif", 10, WIDE - 90), LEFT + 90, TOP)
        draw_lines(canvas, ["Swallows", "and winter"], LEFT, TOP - 26, "Serif", 8, 10)
        return [f"Swallows and winter\n{PASSAGES[9]}"]

    save("notes", "superscripts", superscripts)
    save("notes", "footnotes", footnotes)
    save("notes", "equations_held", equations)
    save("notes", "margin_notes_held", margin)


def from_the_right() -> None:
    """Hebrew and Arabic, drawn as they stand, from left to right."""

    def stand(text, numbers):
        """A line as it stands: turned round, but for its numbers and for Latin words with what follows them."""
        parts: list[tuple[str, str, str]] = []
        latin = False
        for token in text.split(" "):
            core = token.strip(".,()")
            before, _, after = token.partition(core)
            if core and core[0] in numbers or core and core[0].isascii():
                if latin and not before:
                    parts[-1] = (after, f"{parts[-1][1]} {core}", parts[-1][2])
                else:
                    parts.append((after, core, before))
                latin = core[0].isalpha() and core[0].isascii() and not after
            else:
                parts.append(("", _mirrored(token[::-1]), ""))
                latin = False
        return " ".join(
            _mirrored(after[::-1]) + core + _mirrored(before[::-1]) for after, core, before in reversed(parts)
        )

    def draw_right(canvas, lines, numbers="0123456789"):
        y = TOP
        for line in lines:
            shown = stand(line, numbers)
            draw(canvas, shown, RIGHT - pdfmetrics.stringWidth(shown, "Wide", 12), y, "Wide", 12)
            y -= 18
        return ["\n".join(lines)]

    hebrew = ["הנסיך המאושר עמד מעל העיר.", "בשנת 1888 נכתבו 5 סיפורים על ידי אוסקר.", "הסנונית עפה אל הנהר ואל הים."]
    arabic = ["في سنة ١٨٨٨ كتب خمس قصص.", "كان عدد الصفحات ٢٤٥ صفحة.", "طار الطائر فوق المدينة."]
    brackets = ["הספר (Oxford 1888) נמצא כאן.", "המחיר הוא 25 שקלים (כולל מס).", "ראו עמוד 12 בספר."]
    dates = ["התאריך 12.5.2024 נקבע אתמול.", "כ 50% מהאנשים באו.", "הטלפון הוא 03-1234567 בערב."]

    def latin_first(canvas):
        draw(canvas, "The Hebrew name follows here:", LEFT, TOP, "Wide", 11)
        shown = stand("הנסיך המאושר 1888", "0123456789")
        draw(canvas, shown, RIGHT - pdfmetrics.stringWidth(shown, "Wide", 12), TOP - 20, "Wide", 12)
        return ["The Hebrew name follows here:\nהנסיך המאושר 1888"]

    save("from_the_right", "hebrew_with_numbers", lambda canvas: draw_right(canvas, hebrew))
    save("from_the_right", "arabic_with_arabic_digits", lambda canvas: draw_right(canvas, arabic, "٠١٢٣٤٥٦٧٨٩"))
    save("from_the_right", "hebrew_with_latin_in_brackets", lambda canvas: draw_right(canvas, brackets))
    save("from_the_right", "arabic_shapes", lambda canvas: _arabic_shapes(canvas))
    save("from_the_right", "dates_and_signs_held", lambda canvas: draw_right(canvas, dates))
    save("from_the_right", "latin_and_hebrew_held", latin_first)


def _mirrored(text: str) -> str:
    return text.translate(str.maketrans("()", ")("))


def _arabic_shapes(canvas):
    """Arabic as printed: each letter in its shape, with a ligature of lam and alef."""
    shown = ["\ufee1\ufefc\ufeb4\ufedf\ufe8d", "\ufea9\ufef7\ufeed\ufefb\ufe8d"]
    draw(canvas, " ".join(shown[:1]), RIGHT - 60, TOP, "Wide", 14)
    draw(canvas, "2024 " + "\ufe94\ufee8\ufeb3", RIGHT - 120, TOP - 24, "Wide", 14)
    return ["السلام\nسنة 2024"]


def far_east() -> None:
    """Chinese and Japanese, which put no spaces between words."""
    for name in ("HeiseiMin-W3", "STSong-Light"):
        pdfmetrics.registerFont(UnicodeCIDFont(name))
    japanese = (
        "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。"
        "何でも薄暗いじめじめした所でニャーニャー泣いていた事だけは記憶している。"
    )
    chinese = "学而时习之，不亦说乎？有朋自远方来，不亦乐乎？人不知而不愠，不亦君子乎？"

    def chunks(text, size):
        return [text[start : start + size] for start in range(0, len(text), size)]

    def horizontal(canvas):
        draw_lines(canvas, chunks(japanese, 24), LEFT, TOP, "HeiseiMin-W3", 12, 18)
        return [japanese]

    def simplified(canvas):
        draw_lines(canvas, chunks(chinese, 20), LEFT, TOP, "STSong-Light", 12, 18)
        return [chinese]

    def columns(canvas):
        halves = japanese[:36], japanese[36:]
        for row in range(4):
            for position, text in enumerate(halves):
                line = text[row * 11 : row * 11 + 11]
                if line:
                    draw(canvas, line, LEFT + 160 * position, TOP - 18 * row, "HeiseiMin-W3", 12)
        return ["\n".join(halves)]

    save("far_east", "japanese", horizontal)
    save("far_east", "chinese", simplified)
    save("far_east", "japanese_columns_held", columns)


if __name__ == "__main__":
    register_fonts()
    drawn_twice()
    broken_words()
    joined_letters()
    spacing()
    notes()
    from_the_right()
    far_east()
