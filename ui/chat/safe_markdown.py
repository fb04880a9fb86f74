"""An answer's markdown, made safe to render: what is HTML in it is shown as text, and pictures become links.

A model writes what a document made it write. Gradio's own sanitiser stops scripts but keeps styles, forms and links,
and one link styled to cover the page sends the reader away with the first click. So no tag of an answer reaches the
renderer at all. What counts as code is decided here, and written so that the renderer (marked) cannot decide
otherwise: fences stand at the beginning of a line and are longer than any run of backticks in them. So are formulas:
they come between characters that no answer can write, and nothing else is one to Gradio. Knows nothing of where links
lead; `assets/js/chat/links.js` asks before it opens one.
"""

import re
from collections.abc import Iterator

# An opening fence with what stands before it in its line: indentation, quotation marks, list markers.
FENCE = re.compile(r"(?P<prefix>[ \t>]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)*)(?P<fence>`{3,}|~{3,})(?P<info>[^`\n]*)$")
_QUOTE = re.compile(r"[ \t]*>[ \t>]?")
CODE_SPAN = re.compile(r"(?<![`\\])(`+)(?!`)([^\n]+?)(?<!`)\1(?!`)")
AUTOLINK = re.compile(r"<((?:https?://|mailto:)[^\s<>]*)>")
# Whatever may begin a tag, a comment, a declaration or the end of one, also where a stream was cut.
_TAG = re.compile(r"<(?=[A-Za-z/!?]|$)")
# In a line, and in lines of its own: from Unicode's private area, whose characters are taken out of answers.
_INLINE, _DISPLAYED = ("\ue000", "\ue001"), ("\ue002", "\ue003")
_DELIMITERS = re.compile("[\ue000-\ue003]")
LATEX_DELIMITERS = [
    {"left": left, "right": right, "display": pair is _DISPLAYED}
    for pair in (_INLINE, _DISPLAYED)
    for left, right in (pair,)
]
# As models write formulas. One dollar is a formula's only where it cannot be money's; none reaches over an empty line.
_FORMULA = re.compile(
    r"(?<![\\$])\$\$(?P<dollars>(?:(?!\$\$|\n[ \t]*\n)[\s\S]){1,2000}?)\$\$"
    r"|\\\[(?P<brackets>(?:(?!\\\]|\n[ \t]*\n)[\s\S]){1,2000}?)\\\]"
    r"|\\\((?P<parentheses>(?:(?!\\\)|\n)[\s\S]){1,500}?)\\\)"
    r"|(?P<environment>\\begin\{(?P<name>(?:equation|align|gather|multline|cases|[bpvV]?matrix)\*?)\}"
    r"(?:(?!\n[ \t]*\n)[\s\S]){1,2000}?\\end\{(?P=name)\})"
    r"|(?<![\\$\w])\$(?P<dollar>[^\s$`][^$`\n]{0,160}?)(?<![\s\\])\$(?![\w$])"
)
_COMMAND, _PLAIN_WORD, _SIGN = re.compile(r"\\[A-Za-z]"), re.compile(r"[^\W\d_]{4}"), re.compile(r"[-\^_=+*/|(){}<>]")
_MARKS = re.compile("[\u2060-\u2063]")
_LANGUAGE = re.compile(r"[\w+#-]+")


def safe_markdown(text: str) -> str:
    """Markdown that renders as `text` does, but without its HTML and pictures; plain sentences come back unchanged."""
    # marked takes a lone carriage return for the end of a line as well.
    parts = _parts(_DELIMITERS.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))
    return "\n".join(_code_block(lines, info) if code else _prose("\n".join(lines)) for code, info, lines in parts)


def _parts(text: str) -> Iterator[tuple[bool, str, list[str]]]:
    """Yield (whether it is fenced code, its language, lines) in order; an open fence ends with the text."""
    lines: list[str] = []
    opened: re.Match[str] | None = None
    for line in text.split("\n"):
        if opened is None:
            opened = FENCE.match(line)
            if opened is None:
                lines.append(line)
                continue
            if marker := opened["prefix"].rstrip():
                lines.append(marker)
            if lines:
                yield False, "", lines
            lines = []
            continue
        quoted = ">" in opened["prefix"]
        content = _QUOTE.sub("", line, count=1) if quoted else line
        fence = opened["fence"]
        left_quote = quoted and not line.lstrip().startswith(">")
        if left_quote or re.fullmatch(rf"[ \t]*{re.escape(fence[0])}{{{len(fence)},}}[ \t]*", content):
            yield True, opened["info"], lines
            opened, lines = None, [line] if left_quote else []
        else:
            indent = len(opened["prefix"]) if not opened["prefix"].strip() else 0
            lines.append(content[min(indent, len(content) - len(content.lstrip())) :])
    if opened is not None:
        yield True, opened["info"], lines
    elif lines:
        yield False, "", lines


def _code_block(lines: list[str], info: str) -> str:
    code = "\n".join(lines)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", code)), default=0))
    language = _LANGUAGE.match(info.strip())
    # Gradio draws mermaid's pictures from the text, tags and all.
    name = language[0] if language and language[0].lower() != "mermaid" else ""
    return f"\n{fence}{name}\n{code}\n{fence}\n"


def _prose(text: str) -> str:
    """Text outside of fences."""
    parts, end = [], 0
    for span in CODE_SPAN.finditer(text):
        is_plain = not (_TAG.search(span[2]) or "![" in span[2])
        code = span[0] if is_plain else f"<code>{_entities(span[2].strip())}</code>"
        parts += [_without_code(text[end : span.start()]), code]
        end = span.end()
    return "".join([*parts, _without_code(text[end:])])


def _without_code(text: str) -> str:
    """Text outside of code, its formulas between the characters that tell them."""
    parts, end = [], 0
    for start, stop, content, is_displayed in formulas(text):
        left, right = _DISPLAYED if is_displayed else _INLINE
        parts += [_without_tags(text[end:start]), left, _TAG.sub("&lt;", content), right]
        end = stop
    return "".join([*parts, _without_tags(text[end:])])


def formulas(text: str) -> Iterator[tuple[int, int, str, bool]]:
    """The formulas of a text without code: (start, end, what is between the signs, whether it has lines of its own)."""
    for match in _FORMULA.finditer(text):
        kind = next(name for name in ("dollars", "brackets", "parentheses", "environment", "dollar") if match[name])
        content = match[kind].strip()
        is_formula = bool(content) if kind in ("dollars", "environment") else _looks_like_formula(content)
        # A mark of `ui.chat.answer_markers` stands in none, unless it is what fills it.
        if is_formula and not _MARKS.search(content):
            yield match.start(), match.end(), content, kind in ("dollars", "brackets", "environment")


def _looks_like_formula(content: str) -> bool:
    """Whether it is one: "$5" and "\\[1\\]" are not, nor are words."""
    if _COMMAND.search(content):
        return True
    if not content or _PLAIN_WORD.search(content):
        return False
    if content[0].isdigit():
        return bool(re.search(r"[\^_=]", content))
    return bool(_SIGN.search(content)) or len(content) <= 2


def _without_tags(text: str) -> str:
    text = AUTOLINK.sub(r"\1", text)
    return _TAG.sub("&lt;", text).replace("![", "&#33;[")


def _entities(code: str) -> str:
    """Code as HTML that markdown finds nothing in."""
    return re.sub(r"[^\w\s]", lambda sign: f"&#{ord(sign[0])};", code).replace("\n", "&#10;")
