"""Web pages: what is kept, what is dropped, encodings."""

import pytest

from app.library import NoTextError, read_document
from app.library.formats.html import parse_html, text_of


def text(markup: str) -> str:
    return text_of(parse_html(markup.encode()))


def test_headings_and_paragraphs_are_kept_apart():
    assert text("<h1>A  title</h1><p>One\n<b>bold</b>\nword.</p><p>Two.") == "A title\n\nOne bold word.\n\nTwo."


def test_scripts_styles_and_navigation_are_dropped():
    markup = """<html><head><title>Tab</title><style>p {}</style><script>var a = "<p>no</p>"</script></head>
    <body><nav><a href="/">Home</a></nav><!-- no --><p>Yes.</p><noscript>no</noscript></body></html>"""
    assert text(markup) == "Yes."


def test_lists_tables_and_breaks_are_lines():
    assert text("<p>List:</p><ul><li>one<li>two</ul>") == "List:\n\n• one\n• two"
    assert text("<ol>\n  <li>one</li>\n  <li><p>two</p></li>\n</ol>after") == "1. one\n\n2. two\n\nafter"
    assert text("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td><td>d</td></tr></table>") == "a | b\nc | d"
    assert text("<p>verse one<br>verse two</p>") == "verse one\nverse two"
    assert text("<pre>x = 1\ny = 2</pre>") == "x = 1\ny = 2"


def test_page_without_end_tags_is_not_lost():
    assert text("<html><head><meta charset=utf-8><body><form><p>All of <i>it") == "All of it"


def test_deep_nesting_does_not_overflow():
    assert text("<div>" * 5000 + "deep" + "</div>" * 5000) == "deep"


@pytest.mark.parametrize(
    ("declaration", "encoding", "words"),
    [
        ("", "utf-8", "Grüße"),
        ("", "cp1252", "Grüße"),
        ('<meta charset="iso-8859-2">', "iso-8859-2", "Łódź"),
        ('<meta http-equiv="Content-Type" content="text/html; charset=shift_jis">', "shift_jis", "日本語"),
        ('<meta charset="no-such-encoding">', "cp1252", "Grüße"),
        # Wrong, not of text, and narrower than what is written.
        ('<meta charset="utf-8">', "cp1252", "Grüße"),
        ('<meta charset="zip">', "cp1252", "Grüße"),
        ('<meta charset="iso-8859-1">', "cp1252", "“Grüße”"),
        ('<meta charset="gb2312">', "gbk", "朱镕基"),
        ("", "utf-16-le", "Grüße aus der Stadt"),
        ("", "utf-16", "Grüße"),
        ("", "koi8-r", "Статуя Счастливого Принца"),
    ],
)
def test_encodings(tmp_path, declaration, encoding, words):
    path = tmp_path / "page.html"
    path.write_bytes(f"<html><head>{declaration}</head><body><p>{words}</p></body></html>".encode(encoding))
    assert read_document(path).document_pages[0].text == words


def test_page_drawn_by_a_script_has_no_text(tmp_path):
    path = tmp_path / "app.htm"
    path.write_text("<html><body><div id=root></div><script>draw()</script></body></html>")
    with pytest.raises(NoTextError, match='"app.htm" holds no text'):
        read_document(path)
