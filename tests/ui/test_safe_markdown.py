"""Markdown without HTML; that the page's renderer agrees is tested in a browser (`test_answers_in_browser.py`)."""

from __future__ import annotations

import pytest

from ui.safe_markdown import safe_markdown


@pytest.mark.parametrize(
    "text",
    [
        "High above the city",
        "**Bold**, *italic*, `code`, a < b and c > d\n\n- one\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |",
        "[a link](https://example.org) and https://example.org",
        "$$a < b$$",
    ],
)
def test_plain_markdown_stays_as_it_is(text):
    assert safe_markdown(text) == text


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ('<p style="position:fixed">x</p>', '&lt;p style="position:fixed">x&lt;/p>'),
        ("<!-- <b> --> <?x?>", "&lt;!-- &lt;b> --> &lt;?x?>"),
        ("cut in <a hr", "cut in &lt;a hr"),
        ("cut at <", "cut at &lt;"),
        ("![a picture](https://evil.example/x.png)", "&#33;[a picture](https://evil.example/x.png)"),
        ("see <https://example.org/a>", "see https://example.org/a"),
        ("write `<b>`", "write <code>&#60;b&#62;</code>"),
        ("a lone $$ here", "a lone &#36;&#36; here"),
    ],
)
def test_tags_and_pictures_become_text(text, safe):
    assert safe_markdown(text) == safe


def test_code_in_a_fence_keeps_its_tags_and_its_language():
    assert safe_markdown("So:\n```html\n<b>\n```\n<i>") == "So:\n\n```html\n<b>\n```\n\n&lt;i>"
    assert "```html\n<b>\n  <i>\n```" in safe_markdown("1. So:\n   ```html\n   <b>\n     <i>\n   ```")


def test_a_fence_cannot_be_left_from_inside():
    safe = safe_markdown("~~~\n```\n<b>\n~~~~\n<i>")
    assert "````\n```\n<b>\n````" in safe and "&lt;i>" in safe


def test_a_fence_that_is_cut_off_is_closed():
    assert safe_markdown("```html\n<b").rstrip().endswith("<b\n```")


def test_a_formula_cannot_swallow_the_beginning_of_a_fence():
    safe = safe_markdown("$$\n```\n$$ <img src=x>\n```")
    assert "<img" not in safe and "$$" not in safe


def test_mermaid_is_shown_as_code():
    assert "mermaid" not in safe_markdown("```mermaid\n<img src=x>\n```")
    assert "mermaid" not in safe_markdown("~~~ Mermaid\n<img src=x>\n~~~")
