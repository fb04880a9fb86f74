"""Markdown without HTML; that the page's renderer agrees is tested in a browser (`test_answers_in_browser.py`)."""

from __future__ import annotations

import pytest

from ui.chat.safe_markdown import safe_markdown
from ui.chat.streamed_markdown import streamed_markdown


@pytest.mark.parametrize(
    "text",
    [
        "High above the city",
        "**Bold**, *italic*, `code`, a < b and c > d\n\n- one\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |",
        "[a link](https://example.org) and https://example.org",
        "It cost $5 and $10, or US$5-US$10; ($5/$10) and 5$, $HOME/$PATH$, \\[1\\]",
        "a lone $$ here, and \\( there",
        "`$x^2$`",
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
        ("$$a <b$$ and $x^2$", "\ue002a &lt;b\ue003 and \ue000x^2\ue001"),
        ("so \\( n \\): \\[\na = b\n\\]", "so \ue000n\ue001: \ue002a = b\ue003"),
        ("forged \ue000x\ue001 and \ue002y", "forged x and y"),
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


def test_a_formula_cannot_swallow_the_beginning_of_a_fence_and_code_has_none():
    safe = safe_markdown("$$\n```\n$$ <img src=x>\n```")
    assert "\ue002" not in safe and "```\n$$ <img src=x>\n```" in safe
    assert safe_markdown("```\n$x^2$\n```").strip() == "```\n$x^2$\n```"


def test_what_is_not_complete_yet_is_held_back_while_an_answer_is_written():
    table = "So:\n\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n"
    shown = [streamed_markdown(table[:end]) for end in range(len(table) + 1)]
    # It appears with its first row, and grows by whole rows.
    assert {text.count("\n|") for text in shown} == {0, 3, 4}
    assert all("\n| a" not in text or "|---|---|\n| 1 | 2 |" in text for text in shown)
    assert streamed_markdown("So $$x^2") == "So" and "\ue002x^2\ue003" in streamed_markdown("So $$x^2$$ is")
    assert streamed_markdown("It costs $5 and") == "It costs $5 and"
    assert "| a | b" in streamed_markdown("```\n| a | b") and streamed_markdown("So\n``") == "So"


def test_mermaid_is_shown_as_code():
    assert "mermaid" not in safe_markdown("```mermaid\n<img src=x>\n```")
    assert "mermaid" not in safe_markdown("~~~ Mermaid\n<img src=x>\n~~~")
