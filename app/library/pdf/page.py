"""One PDF page as blocks of lines in reading order, from the characters that pdfium finds."""

from dataclasses import dataclass, field

import pypdfium2

from app.library.pdf.characters import read_glyphs
from app.library.pdf.drop_caps import join_drop_caps
from app.library.pdf.garbled import is_garbled
from app.library.pdf.layout import Block, build_blocks
from app.library.pdf.lines import Line, weighted_median
from app.library.pdf.paragraphs import block_text
from app.library.pdf.words import build_words


@dataclass(slots=True)
class PageLayout:
    """What was found on a page.

    Attributes:
        blocks: in reading order; text in other directions than most of it (labels of axes, stamps) comes last.
        body_size: the font size of most of its text, in points.
        is_garbled: whether its text layer does not say which characters it shows; it then has no blocks.
    """

    blocks: list[Block] = field(default_factory=list)
    body_size: float = 0.0
    is_garbled: bool = False

    @property
    def lines(self) -> list[Line]:
        """All lines in reading order."""
        return [line for block in self.blocks for line in block.lines]

    def remove(self, removed: list[Line]) -> None:
        """Take lines out, in place, and blocks that are left without any."""
        gone = {id(line) for line in removed}
        for block in self.blocks:
            block.lines = [line for line in block.lines if id(line) not in gone]
        self.blocks = [block for block in self.blocks if block.lines]

    def set_apart(self, line: Line) -> None:
        """Give a line a block of its own, in place, so that it is not joined with what stands beside it."""
        for position, block in enumerate(self.blocks):
            index = next((index for index, other in enumerate(block.lines) if other is line), None)
            if index is not None:
                parts = (block.lines[:index], [line], block.lines[index + 1 :])
                self.blocks[position : position + 1] = [Block(part, block.is_table) for part in parts if part]
                return

    def text(self) -> str:
        """The page's text, with paragraphs joined."""
        return "\n".join(filter(None, (block_text(block) for block in self.blocks)))


def lay_out_page(document: pypdfium2.PdfDocument, index: int) -> PageLayout:
    """Read a page and put its text into order.

    Args:
        document: an open document.
        index: of the page, from 0.

    Raises:
        pypdfium2.PdfiumError: the page cannot be loaded. TooManyCharactersError: it holds too many.
    """
    by_direction = read_glyphs(document, index)
    glyphs = [glyph for group in by_direction.values() for glyph in group]
    if is_garbled(glyphs):
        return PageLayout(is_garbled=True)
    if not glyphs:
        return PageLayout()
    main = max(by_direction, key=lambda direction: len(by_direction[direction]))
    blocks: list[Block] = []
    for direction in sorted(by_direction, key=lambda direction: (direction != main, direction)):
        words = join_drop_caps(build_words(by_direction[direction]))
        blocks += build_blocks(words)
    return PageLayout(blocks, weighted_median((glyph.size, 1) for glyph in by_direction[main]))
