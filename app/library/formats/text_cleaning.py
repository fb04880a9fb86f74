"""Light cleaning of extracted text: characters, blanks, and the line breaks of typeset pages.

Only form is touched. Nothing is reworded, and no line is dropped but a page's own printed number.
"""

import re
import unicodedata

_LIGATURES = str.maketrans({"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"})
_BLANKS = re.compile("[\t\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Joiners (U+200C, U+200D) stay: Persian and the Indic scripts need them.
_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u200b\u2060\ufeff\ufffe\uffff]")
_SOFT_HYPHEN = "\u00ad"
_WORD_BEFORE_HYPHEN = re.compile("([^\\W\\d_]+)[-\u2010\u00ad]$")
_WORD_AT_START = re.compile(r"[^\W\d_]+")
LIST_ITEM = re.compile(r"\s*(?:[-*+•◦▪‣–—·]\s|\(?\d{1,3}[.)]\s|\(?[a-zA-Z][.)]\s)")

# A line counts as full, and so as broken by the typesetter, from this share of the page's usual line length.
_FULL_LINE_SHARE = 0.8
# A line that ends with a sentence more likely ends a paragraph, too.
_FULL_SENTENCE_LINE_SHARE = 0.95
SENTENCE_END = re.compile("[.!?:…][\"'”’»)\\]]*$")
# Narrower pages are title pages, verse and lists, whose line breaks mean something.
_PROSE_LINE_CHARACTERS = 35
_PROSE_LINES = 5
_PROSE_LETTER_SHARE = 0.6


def clean_characters(text: str) -> str:
    """Unify characters that only typesetting makes different, and blanks; keep lines and paragraphs.

    Args:
        text: any text, also with lone surrogates or control characters.

    Returns:
        The text in Unicode form NFC with ligatures spelt out, single spaces, "\\n" as the only line end, no spaces at
        line ends, at most one empty line in a row, and nothing at its ends. It can always be encoded as UTF-8.
    """
    text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    text = unicodedata.normalize("NFC", text.translate(_LIGATURES))
    text = _LINE_ENDS.sub("\n", text)
    text = _INVISIBLE.sub("", _BLANKS.sub(" ", text))
    text = re.sub(r" *\n *", "\n", re.sub(r" {2,}", " ", text))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def clean_indented(text: str) -> str:
    """Like `clean_characters`, but keep the spaces within and at the start of lines: code, verse, tables.

    Args:
        text: any text.

    Returns:
        The cleaned text; tabs become four spaces.
    """
    text = text.replace("\t", "    ").replace(_SOFT_HYPHEN, "")
    text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    text = unicodedata.normalize("NFC", text.translate(_LIGATURES))
    text = _INVISIBLE.sub("", _BLANKS.sub(" ", _LINE_ENDS.sub("\n", text)))
    text = re.sub(r" +\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n").rstrip()


def clean_typeset_page(text: str, *printed_numbers: str) -> str:
    """Clean the text of a typeset page: its characters, its printed number, its broken words and broken lines.

    A line that fills the width of the page was broken by the typesetter: it is joined to the next one. A shorter line
    ends a paragraph, or is a heading, a verse or an entry of a list, and keeps its line break.

    Args:
        text: one page as extracted, a line of text for a line of the page.
        printed_numbers: what the page may print as its own number, in lower case; such a line at its top or bottom is
            dropped.

    Returns:
        The cleaned text.
    """
    text = _drop_printed_number(clean_characters(text), printed_numbers)
    return _join_lines(text).replace(_SOFT_HYPHEN, "")


def _drop_printed_number(text: str, printed_numbers: tuple[str, ...]) -> str:
    lines = text.split("\n")
    for position in (0, -1):
        if lines and lines[position].strip(" -–—[]|.").lower() in printed_numbers:
            del lines[position]
    return "\n".join(lines).strip("\n")


def _join_lines(text: str) -> str:
    lines = text.split("\n")
    usual_length = _usual_line_length(lines)
    lower_text = text.lower()
    joined = [lines[0]]
    # Judged by the last line alone: a paragraph that was joined from several is longer than any line.
    for previous, line in zip(lines, lines[1:], strict=False):
        word = join_broken_word(previous, line, lower_text)
        if word is not None:
            joined[-1] = joined[-1][: len(joined[-1]) - len(previous)] + word
        elif _is_full(previous, usual_length) and is_prose(previous) and is_prose(line):
            joined[-1] += f" {line}"
        else:
            joined.append(line)
    return "\n".join(joined)


def join_broken_word(text: str, rest: str, lower_text: str) -> str | None:
    """Join a text with what follows it, if it ends with the first half of a word that the typesetter broke.

    Args:
        text: ends where the line does.
        rest: the next line.
        lower_text: what surrounds them, in lower case; a compound that it spells with its hyphen keeps it.

    Returns:
        Both as one, or None if no word was broken.
    """
    broken_word = _WORD_BEFORE_HYPHEN.search(text[-40:])
    other_half = _WORD_AT_START.match(rest)
    if not broken_word or not other_half:
        return None
    keeps_hyphen = _is_compound(broken_word.group(1), other_half.group(), lower_text)
    return (text if keeps_hyphen else text[:-1]) + rest


def _usual_line_length(lines: list[str]) -> float:
    """The length of the page's full lines; infinite on a page that is not prose."""
    lengths = sorted(len(line) for line in lines if line)
    usual_length = lengths[int(0.8 * (len(lengths) - 1))] if len(lengths) >= _PROSE_LINES else 0
    return usual_length if usual_length >= _PROSE_LINE_CHARACTERS else float("inf")


def _is_full(line: str, usual_length: float) -> bool:
    share = _FULL_SENTENCE_LINE_SHARE if SENTENCE_END.search(line) else _FULL_LINE_SHARE
    return len(line) >= share * usual_length


def _is_compound(first: str, second: str, lower_text: str) -> bool:
    # Half of a name ("Jean-\nPaul"), or spelt with its hyphen elsewhere on the page.
    return second[0].isupper() or f"{first}-{second}".lower() in lower_text


def is_prose(line: str) -> bool:
    """Whether a line is made of letters for the most part, and no entry of a list."""
    if LIST_ITEM.match(line):
        return False
    letters = sum(character.isalpha() for character in line)
    return letters > 0 and letters >= _PROSE_LETTER_SHARE * len(line)
