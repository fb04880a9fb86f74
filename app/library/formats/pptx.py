"""PowerPoint presentations (.pptx, .pptm, .ppsx): a page for each slide, named by its number and title.

What stands on a slide comes as it is looked at: the title, then columns and rows of boxes; groups, tables, charts and
diagrams are read, the speaker's notes follow. Dates, footers and slide numbers are left out. Macros are never looked
at. See ECMA-376, part 1, 19 to 21.
"""

from collections.abc import Iterator
from pathlib import Path

from app.library.errors import NoTextError
from app.library.formats.extracted_page import ExtractedPage
from app.library.formats.pagination import shortened_title
from app.library.formats.text_cleaning import clean_characters
from app.library.limits import ReadLimits
from app.library.office.package import Element, OfficePackage, opened_package
from app.library.office.pptx_graphics import graphic_text
from app.library.office.pptx_layout import Layouts, PlacedShape, in_reading_order
from app.library.office.pptx_text import body_text

_TITLES = ("title", "ctrTitle")
_DECORATION = ("dt", "ftr", "sldNum", "hdr")
_BODIES = ("body", "obj")


def read_pages(path: Path, password: str | None, limits: ReadLimits) -> Iterator[ExtractedPage]:
    """Read a presentation, a slide at a time.

    Args:
        path: the file.
        password: ignored.
        limits: `unpacked_bytes` bounds what comes out of the zip file.

    Yields:
        All slides, labelled "3. Title" or "3"; a damaged one with `readable=False`, one that shows a picture and no
        text with `is_picture=True`.

    Raises:
        DamagedDocumentError, NoTextError, ReadLimitExceeded.
    """
    with opened_package(path, limits) as package:
        name = package.related("", "officeDocument") or "ppt/presentation.xml"
        presentation, relations = package.xml(name), package.relations(name)
        ids = [slide.get("rel:id", "") for slide in presentation.iterfind("sldIdLst/sldId")]
        slides = [relations[one][1] for one in ids if one in relations]
        layouts, has_text = Layouts(package), False
        for number, slide_name in enumerate(slides, start=1):
            root = package.optional_xml(slide_name)
            if root is None:
                yield ExtractedPage(str(number), "", number, len(slides), readable=False)
                continue
            title, text, shows_picture = _slide(package, slide_name, root, layouts)
            has_text |= bool(text)
            label = f"{number}. {title}" if title else str(number)
            yield ExtractedPage(label, text, number, len(slides), is_picture=shows_picture and not text)
    if not has_text:
        raise NoTextError(
            f'"{path.name}" holds no text: its slides are empty, or pictures. Export it as a PDF, in which text can be '
            "recognised (OCR)."
        )


def _slide(package: OfficePackage, name: str, root: Element, layouts: Layouts) -> tuple[str, str, bool]:
    """Title, text, and whether there are pictures on a slide."""
    relations = package.relations(name)
    shapes = layouts.placed_shapes(root, name)
    titles = [_shape_text(package, relations, shape) for shape in shapes if shape.kind in _TITLES]
    others = [shape for shape in shapes if shape.kind not in (*_TITLES, *_DECORATION)]
    pieces = [*titles, *(_shape_text(package, relations, shape) for shape in in_reading_order(others))]
    notes_name = package.related(name, "notesSlide")
    notes = package.optional_xml(notes_name)
    if notes is not None:
        bodies = [shape for shape in layouts.placed_shapes(notes, notes_name or "") if shape.kind == "body"]
        noted = "\n".join(filter(None, (_shape_text(package, {}, shape, has_bullets=False) for shape in bodies)))
        pieces.append(f"Notes: {noted}" if noted.strip() else "")
    text = clean_characters("\n\n".join(piece for piece in pieces if piece.strip()))
    shows_picture = any(shape.element.tag == "pic" for shape in shapes)
    return shortened_title(" ".join(titles)), text, shows_picture


def _shape_text(
    package: OfficePackage, relations: dict[str, tuple[str, str]], shape: PlacedShape, has_bullets: bool = True
) -> str:
    if shape.element.tag == "graphicFrame":
        return graphic_text(package, relations, shape.element)
    return body_text(shape.element.find("txBody"), has_bullets=has_bullets and shape.kind in _BODIES)
