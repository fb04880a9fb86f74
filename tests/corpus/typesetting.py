"""What the scripts that make the corpus's PDFs share: fonts, wrapped lines, a file with its right text beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from reportlab.lib.pagesizes import A5
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

CORPUS = Path(__file__).parents[2] / "assets" / "corpus" / "pdf"
_FONTS = Path("/usr/share/fonts/truetype")
PASSAGES = (Path(__file__).parent / "passages.txt").read_text(encoding="utf-8").split("\n\n")
WIDTH, HEIGHT = A5
LEFT, RIGHT, TOP, BOTTOM = 42.0, WIDTH - 42.0, HEIGHT - 60.0, 60.0


def register_fonts() -> None:
    """Make the standard fonts, which need no file, and two free ones known under short names."""
    for name, standard in {
        "Serif": "Times-Roman",
        "SerifBold": "Times-Bold",
        "Sans": "Helvetica",
        "SansBold": "Helvetica-Bold",
        "Mono": "Courier",
    }.items():
        pdfmetrics.registerFont(pdfmetrics.Font(name, standard, "WinAnsiEncoding"))
    # Embedded, and so larger: only for what the standard fonts do not have.
    pdfmetrics.registerFont(TTFont("Wide", str(_FONTS / "dejavu" / "DejaVuSans.ttf")))
    pdfmetrics.registerFont(TTFont("Embedded", str(_FONTS / "liberation" / "LiberationSerif-Regular.ttf")))


def sentences(passage: int, count: int, first: int = 0) -> str:
    """Some sentences of one of the passages."""
    parts = PASSAGES[passage].replace("? ", "?\n").replace("! ", "!\n").replace(". ", ".\n").split("\n")
    return " ".join(parts[first : first + count])


def wrap(text: str, font: str, size: float, width: float) -> list[str]:
    """Break a text into lines that fit into `width` points."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and pdfmetrics.stringWidth(longer, font, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def draw_lines(
    canvas: Canvas,
    lines: Sequence[str],
    x: float,
    y: float,
    font: str = "Serif",
    size: float = 10,
    pitch: float = 13,
    justified_to: float = 0,
) -> float:
    """Draw lines from `y` down; returns where the next one would stand.

    With `justified_to`, all lines but the last are stretched to that width, each word placed on its own.
    """
    for number, line in enumerate(lines):
        words = line.split()
        if justified_to and number < len(lines) - 1 and len(words) > 1:
            room = justified_to - sum(pdfmetrics.stringWidth(word, font, size) for word in words)
            place = x
            for word in words:
                draw(canvas, word, place, y, font, size)
                place += pdfmetrics.stringWidth(word, font, size) + room / (len(words) - 1)
        else:
            draw(canvas, line, x, y, font, size)
        y -= pitch
    return y


def draw(canvas: Canvas, text: str, x: float, y: float, font: str = "Serif", size: float = 10) -> None:
    """Draw one piece of text."""
    canvas.setFont(font, size)
    canvas.drawString(x, y, text)


def paragraph(canvas: Canvas, text: str, y: float, x: float = LEFT, width: float = RIGHT - LEFT, **style) -> float:
    """Draw a wrapped paragraph; returns where the next one would begin."""
    font, size = style.get("font", "Serif"), style.get("size", 10)
    return draw_lines(canvas, wrap(text, font, size, width), x, y, **style) - 5


def save(kind: str, name: str, build: Callable[[Canvas], Sequence[str]], size: tuple[float, float] = A5) -> Path:
    """Make one PDF of the corpus; `build` draws its pages and returns the right text of each."""
    folder = CORPUS / kind
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.pdf"
    canvas = Canvas(str(path), pagesize=size, invariant=1, pageCompression=1)
    canvas.setTitle(name)
    pages = build(canvas)
    canvas.save()
    write_right_text(path, pages)
    return path


def write_right_text(path: Path, pages: Sequence[str]) -> None:
    """Write what the author wrote, a form feed between document pages, beside the file."""
    path.with_suffix(".txt").write_text("\f".join(page.strip("\n") for page in pages) + "\n", encoding="utf-8")
