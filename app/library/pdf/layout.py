"""The order of a page's text: columns one after the other, tables row by row, everything else from top to bottom.

Looks for gutters: stretches that no word crosses over several lines. Whether what stands beside a gutter is a column of
prose or a table's column is told by how full the lines are and by the order in which they were drawn: those who set
tables draw them row by row. Knows nothing of fonts and of what the words say, but for the markers of lists.
"""

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from app.library.pdf.lines import Line, build_lines, is_unspaced, weighted_median
from app.library.pdf.words import Word

CELL_SEPARATOR = " | "

# In shares of the usual font size.
_ROW_TOLERANCE = 0.45
_LEAST_GUTTER = 0.9
# Two rows could have a gap in one place by chance.
_LEAST_GUTTER_OF_FEW_ROWS = 1.5
_FEW_ROWS = 4
_MOST_NESTED = 6
# So far down one looks for the other side of a gutter.
_SEARCHED_ROWS = 40
_HEADING_ROWS = 3
_HEADING_SIZE = 1.1
# An empty stretch as high as this ends columns and tables: headers and footers are none of theirs.
_WIDEST_GAP = 5
# A column of prose: that many lines, of so many words, most of which fill the column.
_PROSE_LINES = 3
_PROSE_WORDS = 3.0
_PROSE_FILL = 0.75
_PROSE_FULL_SHARE = 0.5
_ALIGNED_SHARE = 0.6
_NUMERIC_SHARE = 0.7
_LONGEST_NUMBER = 40
_LIST_MARKER = re.compile(
    r"(?:[-*+\u2022\u25e6\u25aa\u25cf\u25cb\u25a0\u2023\u2013\u2014\u00b7\uf0b7o>]|\[?\(?(?:\d{1,3}|[a-zA-Z]|[ivxlIVXL]{1,5})[.):\]]{1,2}"
    r"|\d{1,2}(?:\.\d{1,2}){1,3}\.?|\[\w{1,8}\]|\d{1,4})"
)
_NUMERIC_CELL = re.compile(r"[\W\d]*\d[\W\d]*\w{0,3}\W?")


@dataclass(slots=True)
class Block:
    """Lines that are read from top to bottom.

    Attributes:
        lines: at least one.
        is_table: whether each line is a row of a table, with its cells separated.
    """

    lines: list[Line]
    is_table: bool = False


@dataclass(slots=True)
class _Row:
    """Words that stand about on one line, and the stretches that they take up."""

    baseline: float
    words: list[Word]
    taken: list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class _Region:
    """Rows with columns: the first and the last of them, and the gutters that no word of theirs crosses."""

    first: int
    last: int
    gutters: list[tuple[float, float]]


def build_blocks(words: Sequence[Word]) -> list[Block]:
    """Divide the words of a page, all in one direction of writing, into blocks in reading order.

    Args:
        words: in any order.

    Returns:
        The blocks; no word is lost.
    """
    if not words:
        return []
    size = weighted_median((word.size, len(word.glyphs)) for word in words)
    return [block for block in _divide(list(words), size, 0) if block.lines]


def _divide(words: list[Word], size: float, depth: int) -> list[Block]:
    rows = _rows(words, size)
    blocks: list[Block] = []
    flow: list[Word] = []
    first = 0
    while first < len(rows):
        found = _best_region(rows, first, size) if depth < _MOST_NESTED else None
        region = _region_blocks(rows, found, size, depth) if found else None
        last = found.first - 1 if region is not None else first
        flow += [word for row in rows[first : last + 1] for word in row.words]
        first = last + 1
        if region is None:
            continue
        if flow:
            blocks.append(Block(build_lines(flow)))
            flow = []
        blocks += region
        first = found.last + 1
    if flow:
        blocks.append(Block(build_lines(flow)))
    return blocks


def _rows(words: list[Word], size: float) -> list[_Row]:
    rows: list[_Row] = []
    for word in sorted(words, key=lambda word: word.baseline):
        if rows and word.baseline - rows[-1].baseline <= _ROW_TOLERANCE * size:
            rows[-1].words.append(word)
        else:
            rows.append(_Row(word.baseline, [word], []))
    for row in rows:
        row.words.sort(key=lambda word: word.start)
        for word in row.words:
            if row.taken and word.start - row.taken[-1][1] < _LEAST_GUTTER * size:
                row.taken[-1] = (row.taken[-1][0], max(row.taken[-1][1], word.end))
            else:
                row.taken.append((word.start, word.end))
    return rows


def _find_region(rows: list[_Row], first: int, size: float) -> _Region | None:
    """The longest stretch of rows from `first` on with a gutter."""
    left = min(row.taken[0][0] for row in rows)
    right = max(row.taken[-1][1] for row in rows)
    free = [(-float("inf"), float("inf"))]
    low, high = float("inf"), -float("inf")
    found: _Region | None = None
    shared_rows = 0
    for index in range(first, len(rows)):
        taken = rows[index].taken
        if index > first and rows[index].baseline - rows[index - 1].baseline > _WIDEST_GAP * size:
            return found
        free = _without(free, taken, _LEAST_GUTTER * size)
        low, high = min(low, taken[0][0]), max(high, taken[-1][1])
        gutters = [gap for gap in free if low < gap[0] and gap[1] < high]
        if found and len(gutters) < len(found.gutters) and len(taken) == 1 and shared_rows > 1:
            # A line across a table's columns: a heading or a note, and the end of the table.
            return found
        shared_rows += len(taken) > 1
        if gutters:
            found = _Region(first, index, gutters)
        elif found or index - first > _SEARCHED_ROWS or (len(taken) == 1 and taken[0] == (left, right)):
            return found
    return found


def _best_region(rows: list[_Row], first: int, size: float) -> _Region | None:
    """As `_find_region`, without a heading above the columns that hides some of their gutters."""
    best = _find_region(rows, first, size)
    for start in range(first + 1, min(first + _HEADING_ROWS, len(rows)) + 1):
        if best is None or len(rows[start - 1].taken) > 1 or start > best.last:
            break
        later = _find_region(rows, start, size)
        if later and len(later.gutters) > len(best.gutters) and later.last >= best.last - 1:
            best = later
    if best is None:
        return None
    last = best.last
    # A heading below the columns belongs to what crosses the gutter after it.
    while best.first < last < len(rows) - 1 and _is_heading(rows[last], size):
        last -= 1
    return _Region(best.first, last, best.gutters)


def _is_heading(row: _Row, size: float) -> bool:
    return len(row.taken) == 1 and min(word.size for word in row.words) >= _HEADING_SIZE * size


def _without(
    free: list[tuple[float, float]], taken: list[tuple[float, float]], least_width: float
) -> list[tuple[float, float]]:
    left: list[tuple[float, float]] = []
    for start, end in free:
        for taken_start, taken_end in taken:
            if taken_end <= start or taken_start >= end:
                continue
            if taken_start - start >= least_width:
                left.append((start, taken_start))
            start = max(start, taken_end)
        if end - start >= least_width:
            left.append((start, end))
    return left


def _region_blocks(rows: list[_Row], found: _Region, size: float, depth: int) -> list[Block] | None:
    """The blocks of a region, or None where it is neither columns nor a table."""
    region, gutters = rows[found.first : found.last + 1], found.gutters
    cells = [_split(row.words, gutters) for row in region]
    gutters, cells = _without_marker_columns(gutters, cells, region)
    if not gutters:
        return None
    columns = [[word for row in cells for word in row[position]] for position in range(len(gutters) + 1)]
    shared_rows = [row for row in cells if sum(bool(cell) for cell in row) > 1]
    widest = max(end - start for start, end in gutters)
    if len(shared_rows) < _FEW_ROWS and widest < _LEAST_GUTTER_OF_FEW_ROWS * size:
        return None
    column_lines = [build_lines(column) for column in columns]
    if all(_is_prose(lines) for lines in column_lines) and len(gutters) < 5:
        return [block for column in columns for block in _divide(column, size, depth + 1)]
    if len(shared_rows) < 2 or all(line.is_fixed_pitch for lines in column_lines for line in lines):
        # Programs and their output keep their blanks.
        return None
    if _is_table(cells, columns, column_lines, size):
        return [Block(_table_rows(region, cells, size), is_table=True)]
    if all(len(lines) > 1 for lines in column_lines):
        return [block for column in columns for block in _divide(column, size, depth + 1)]
    return None


def _split(words: list[Word], gutters: list[tuple[float, float]]) -> list[list[Word]]:
    cells: list[list[Word]] = [[] for _ in range(len(gutters) + 1)]
    for word in words:
        cells[sum(word.start >= end - 0.01 for _, end in gutters)].append(word)
    return cells


def _without_marker_columns(
    gutters: list[tuple[float, float]], cells: list[list[list[Word]]], region: list[_Row]
) -> tuple[list[tuple[float, float]], list[list[list[Word]]]]:
    """Join a column of bullets, numbers of entries or line numbers with what stands beside it."""
    kept: list[tuple[float, float]] = []
    for position, gutter in enumerate(gutters):
        texts = ["".join(word.text for word in row[position]) for row in cells if row[position]]
        if (
            position > 0
            or not texts
            or not all(_LIST_MARKER.fullmatch(text) for text in texts)
            or _counts_little(texts)
        ):
            kept.append(gutter)
    return (kept, cells) if len(kept) == len(gutters) else (kept, [_split(row.words, kept) for row in region])


def _counts_little(texts: list[str]) -> bool:
    """Whether bare numbers are no numbering: a table's years and amounts do not count up by one."""
    if not all(text.isdigit() for text in texts):
        return False
    numbers = [int(text) for text in texts]
    steps = [after - before for before, after in zip(numbers, numbers[1:], strict=False)]
    return not steps or any(step not in (1, 5, 10) for step in steps) or len(texts[0]) > 3


def _is_prose(lines: list[Line]) -> bool:
    if len(lines) < _PROSE_LINES:
        return False
    words = statistics.fmean(_count_words(line.text) for line in lines)
    width = max(line.end for line in lines) - min(line.start for line in lines)
    full = sum(line.end - line.start >= _PROSE_FILL * width for line in lines)
    return words >= _PROSE_WORDS and full >= _PROSE_FULL_SHARE * len(lines)


def _count_words(text: str) -> float:
    """About how many words a line has, also in scripts that put no spaces between them."""
    unspaced = sum(is_unspaced(character) for character in text)
    return max(len(text.split()), (len(text) - unspaced) / 8 + unspaced / 2)


def _is_table(
    cells: list[list[list[Word]]], columns: list[list[Word]], column_lines: list[list[Line]], size: float
) -> bool:
    """Whether the rows of a region belong together: they are aligned, and drawn row by row or made of numbers."""
    filled = [[cell for cell in row if cell] for row in cells]
    aligned = sum(
        max(cell[0].baseline for cell in row) - min(cell[0].baseline for cell in row) <= _ROW_TOLERANCE * size
        for row in filled
        if len(row) > 1
    )
    fewest = min(len(lines) for lines in column_lines)
    if aligned < _ALIGNED_SHARE * fewest or aligned < 2:
        return False
    if any(_is_numeric(lines) for lines in column_lines[1:]) or _is_labels(column_lines[0]):
        return True
    return not _drawn_by_columns(columns)


def _is_numeric(lines: list[Line]) -> bool:
    cells = [line.text for line in lines if len(line.text) <= _LONGEST_NUMBER]
    return sum(bool(_NUMERIC_CELL.fullmatch(cell)) for cell in cells) >= _NUMERIC_SHARE * len(lines)


def _is_labels(lines: list[Line]) -> bool:
    """Whether the lines name what stands beside them, as a form's do."""
    return sum(line.text.endswith(":") for line in lines) >= _NUMERIC_SHARE * len(lines)


def _drawn_by_columns(columns: list[list[Word]]) -> bool:
    orders = [(min(word.order for word in column), max(word.order for word in column)) for column in columns if column]
    return all(before[1] < after[0] for before, after in zip(orders, orders[1:], strict=False))


def _table_rows(region: list[_Row], cells: list[list[list[Word]]], size: float) -> list[Line]:
    """One line for each row of the table; lines of wrapped cells are put together."""
    lines: list[Line] = []
    for members in _grouped_rows(region, cells, size):
        merged = [[word for row in members for word in cells[row][column]] for column in range(len(cells[0]))]
        cell_lines = [build_lines(cell) for cell in merged]
        texts = [" ".join(line.text for line in cell).strip() for cell in cell_lines]
        if sum(bool(text) for text in texts) == 1:
            lines += [line for cell in cell_lines for line in cell]
            continue
        every = [line for cell in cell_lines for line in cell]
        is_rtl = sum(line.is_right_to_left for line in every) > len(every) / 2
        lines.append(
            Line(
                CELL_SEPARATOR.join(reversed(texts) if is_rtl else texts).strip(),
                min(line.start for line in every),
                max(line.end for line in every),
                min(line.baseline for line in every),
                size,
                is_rtl,
                False,
            )
        )
    return lines


def _grouped_rows(region: list[_Row], cells: list[list[list[Word]]], size: float) -> list[list[int]]:
    """Which rows of text make one row of the table: those nearer to each other, or that have no first cell."""
    gaps = [after.baseline - before.baseline for before, after in zip(region, region[1:], strict=False)]
    narrow, wide = (min(gaps), max(gaps)) if gaps else (0.0, 0.0)
    # Cells with several lines stand further apart than the lines within them.
    has_wide_gaps = wide > 1.25 * narrow and narrow < 1.5 * size
    groups: list[list[int]] = [[0]]
    for index, gap in enumerate(gaps, start=1):
        filled = [bool(cell) for cell in cells[index]]
        is_near = has_wide_gaps and gap < 0.5 * (narrow + wide) and not all(filled)
        continues = not filled[0] and any(filled) and gap < 1.8 * size
        if is_near and any(filled[1:]) or continues:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups
