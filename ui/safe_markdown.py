"""An answer's markdown, made safe to render: what is HTML in it is shown as text, and pictures become links.

A model writes what a document made it write. Gradio's own sanitiser stops scripts but keeps styles, forms and links,
and one link styled to cover the page sends the reader away with the first click. So no tag of an answer reaches the
renderer at all. What counts as code is decided here, and written so that the renderer (marked) cannot decide
otherwise: fences stand at the beginning of a line and are longer than any run of backticks in them. Knows nothing of
where links lead; `assets/js/links.js` asks before it opens one.
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
FORMULA = re.compile(r"\$\$[\s\S]+?\$\$")
_LANGUAGE = re.compile(r"[\w+#-]+")


def safe_markdown(text: str) -> str:
    """Markdown that renders as `text` does, but without its HTML and pictures; plain sentences come back unchanged."""
    # marked takes a lone carriage return for the end of a line as well.
    parts = _parts(text.replace("\r\n", "\n").replace("\r", "\n"))
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
    if "$$" in FORMULA.sub("", code):
        # Gradio looks for formulas before it looks for code: this one would begin here and end behind the fence.
        return f"\n<pre><code>{_entities(code)}</code></pre>\n"
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", code)), default=0))
    language = _LANGUAGE.match(info.strip())
    # Gradio draws mermaid's pictures from the text, tags and all.
    name = language[0] if language and language[0].lower() != "mermaid" else ""
    return f"\n{fence}{name}\n{code}\n{fence}\n"


def _prose(text: str) -> str:
    """Text outside of fences."""
    parts, end = [], 0
    for span in CODE_SPAN.finditer(text):
        if _TAG.search(span[2]) or "![" in span[2] or "$$" in span[2]:
            parts += [_without_tags(text[end : span.start()]), f"<code>{_entities(span[2].strip())}</code>"]
            end = span.end()
    prose = "".join([*parts, _without_tags(text[end:])])
    if "$$" in FORMULA.sub("", prose):
        prose = prose.replace("$$", "&#36;&#36;")
    return prose


def _without_tags(text: str) -> str:
    text = AUTOLINK.sub(r"\1", text)
    return _TAG.sub("&lt;", text).replace("![", "&#33;[")


def _entities(code: str) -> str:
    """Code as HTML that neither markdown nor Gradio's search for formulas finds anything in."""
    return re.sub(r"[^\w\s]", lambda sign: f"&#{ord(sign[0])};", code).replace("\n", "&#10;")
