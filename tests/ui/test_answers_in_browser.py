"""Hostile answers in a real browser: nothing of one becomes part of the page, and no link opens with one click."""

from __future__ import annotations

import random

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# What markdown alone makes of an answer, with what Gradio adds to code and formulas.
EXPECTED_TAGS = set(
    "a blockquote br button code del div em h1 h2 h3 h4 h5 h6 hr input li math ol p path pre rect span strong svg "
    "table tbody td th thead tr ul".split()
)
HOSTILE = (
    '<a href="https://evil.example/" style="position:fixed;inset:0;z-index:9999">click</a>',
    '<form action="https://evil.example/"><input name="secret"><button>Send</button></form>',
    '<img src="https://evil.example/x.png" onerror="window.stolen = 1">',
    '<svg><a href="https://evil.example/"><rect width="9999" height="9999" style="position:fixed"/></a></svg>',
    "<math><mtext><style>body { display: none }</style></mtext></math>",
    "<details open ontoggle='window.stolen = 1'><summary>x</summary></details>",
    '<div id="question" class="hostile" style="position:fixed">x</div>',
    "![picture](https://evil.example/p.png)",
    "[script](javascript:window.stolen=1)",
    "<style>body { display: none }</style>",
    "$$\\rule{900em}{900em}$$",
    "$x^2 <img src=https://evil.example/f.png onerror='window.stolen = 1'>$",
    "\\[\\href{javascript:window.stolen=1}{x} \\includegraphics{https://evil.example/g.png}\\]",
)
SYNTAX = ("$$", "```\n", "```html\n", "```mermaid\n", "~~~\n", "- ", "> ", "\n", "\n\n", "    ", "`", "text ", "\r")
SYNTAX += ("\\(", "\\)", "\\[ x^2 ", " \\]", "$", "$x$", "\ue000", "\ue001", "\ue002", "\ue003", "| a |\n|---|\n")
PIECES = (*HOSTILE, *SYNTAX, "%%%LATEX_BLOCK_0%%%")
LOOK = """() => [...document.querySelectorAll("#messages .bot-row .md *")].map((element) => ({
  tag: element.localName,
  inFormula: element.closest(".katex, .katex-error") !== null,
  attributes: [...element.attributes].map((attribute) => attribute.name + "=" + attribute.value),
}))"""


def ask(page, question: str = "Where?") -> None:
    page.fill("#question textarea", question)
    page.press("#question textarea", "Enter")
    page.wait_for_selector("#question button:has-text('Ask')")


def check_answer(page) -> None:
    """Fail if anything of the answer is more than text, markdown and formulas."""
    for element in page.evaluate(LOOK):
        if element["inFormula"]:
            continue
        assert element["tag"] in EXPECTED_TAGS, element
        for attribute in element["attributes"]:
            assert not attribute.startswith(("style", "id=", "on", "src", "action")), element
            assert "hostile" not in attribute, element
    assert page.locator("#messages .bot-row .md :is(form, img, style, textarea, iframe)").count() == 0
    assert page.evaluate("window.stolen") is None


def test_hostile_answers_stay_text_at_every_cut(open_page, served):
    page = open_page()
    served.words = tuple(piece + "\n\n" for piece in HOSTILE)
    ask(page)
    page.locator("#messages .md", has_text="position:fixed;inset:0").wait_for()
    check_answer(page)
    # The answer as it stands on the page while it is being written, cut inside of a tag.
    whole = HOSTILE[0]
    served.words = (whole[: len(whole) // 2], whole[len(whole) // 2 :])
    served.pause.clear()
    page.fill("#question textarea", "Cut?")
    page.press("#question textarea", "Enter")
    page.locator("#messages .md", has_text='<a href="https').last.wait_for()
    check_answer(page)
    served.pause.set()
    page.wait_for_selector("#question button:has-text('Ask')")
    check_answer(page)


def test_no_mixture_of_fences_formulas_and_tags_gets_through(open_page, served):
    page = open_page()
    chance = random.Random(7)
    # Each its own paragraph would hide what one leaves open: an answer is one mixture.
    for _ in range(12):
        served.words = tuple(chance.choices(PIECES, k=40))
        ask(page)
        page.wait_for_timeout(150)
        check_answer(page)


def test_an_answer_cannot_draw_outside_of_its_bubble(open_page, served):
    page = open_page()
    served.words = ("$$\\rule{900em}{900em}$$ $$\\kern{-90em}\\raisebox{90em}{\\rule{200em}{200em}}$$",)
    ask(page)
    page.locator("#messages .katex").first.wait_for()
    assert page.locator("#messages .md").bounding_box()["height"] < 600
    for selector in ("#question textarea", "#page-header h1", "#documents-panel h2"):
        assert page.locator(selector).evaluate(
            """element => {
              const box = element.getBoundingClientRect();
              return element.contains(document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2));
            }"""
        )


def test_markdown_code_and_formulas_are_rendered_without_a_network(open_page, served):
    page = open_page(viewport={"width": 390, "height": 844})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    wide = "| head of a column " * 12 + "|\n" + "|---" * 12 + "|\n" + "| cell " * 12 + "|"
    table = f"| a | b |\n|---|---|\n| 1 | 2 |\n\n{wide}"
    formulas = "It cost $5 and $10 when $v = \\frac{d}{t}$, \\(n\\) times.\n\n\\[ E = mc^2 \\]\n\n"
    code = "```html\n<i>x</i>\n```\n\n```\n" + "long " * 80 + "$x^2$\n```\n"
    served.words = (f"# Title\n\n- *one*\n- **two** `<b>`\n\n{table}\n\n", formulas, code)
    ask(page)
    page.locator("#messages .md .katex-display").wait_for()
    assert page.locator("#messages .md .katex").count() == 3
    assert "It cost $5 and $10 when" in page.locator("#messages .md").inner_text()
    # What is wide scrolls in its own box, which the keyboard reaches; the page does not.
    for selector in (".md table", ".md pre"):
        page.wait_for_function(f"document.querySelectorAll('#messages {selector}')[1].tabIndex === 0")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("#messages .bubble-wrap").evaluate("area => area.scrollWidth <= area.clientWidth")
    assert [url for url in asked if not url.startswith(served.address)] == []
    answer = page.locator("#messages .md")
    for selector in ("h1", "li em", "li strong", "table td", ".code_wrap pre"):
        answer.locator(selector).first.wait_for()
    assert answer.locator("li code").inner_text() == "<b>"
    assert answer.locator("pre").first.inner_text().strip() == "<i>x</i>"


def test_a_link_tells_where_it_leads_before_it_opens(open_page, served):
    page = open_page()
    opened: list[str] = []
    page.context.on("page", lambda other: opened.append(other.url))
    # No network is needed, or asked.
    page.context.route("https://evil.example/**", lambda route: route.fulfill(body="caught"))
    served.words = ("[the city](https://evil.example/?secret=1) and [a script](javascript:alert(1))",)
    ask(page)
    link = page.locator("#messages .md a", has_text="the city")
    dialog = page.locator(".link-dialog")
    for modifiers in ([], ["Control"]):
        link.click(modifiers=modifiers)
        assert "Opens https://evil.example/?secret=1 in a new tab" in dialog.inner_text()
        page.keyboard.press("Escape")
        assert dialog.count() == 0
    link.click(button="middle")
    dialog.wait_for()
    page.mouse.click(5, 5)
    assert dialog.count() == 0
    link.dblclick()
    assert opened == []
    page.keyboard.press("Escape")
    assert link.evaluate("element => element === document.activeElement")
    page.keyboard.press("Enter")
    assert dialog.get_by_role("button", name="Open").evaluate("element => element === document.activeElement")
    with page.context.expect_page() as opening:
        page.keyboard.press("Enter")
    assert opening.value.evaluate("window.opener") is None
    assert dialog.count() == 0


def test_questions_and_file_names_are_text(open_page, served, tmp_path):
    page = open_page()
    file = tmp_path / "<img src=x onerror=1>.txt"
    file.write_text("High above the city")
    page.set_input_files("#document-files input[type=file]", str(file))
    page.wait_for_selector("#document-list li")
    ask(page, f"{HOSTILE[0]} **stars** <img src=x onerror='window.stolen = 1'>")
    assert page.locator("#messages .user-row quest-question").inner_text().startswith(HOSTILE[0] + " **stars**")
    assert page.locator("#messages .user-row :is(a, img)").count() == 0
    assert page.locator("#document-list img").count() == 0
    page.get_by_role("tab", name="Race").click()
    page.fill("#race-question", HOSTILE[2])
    page.press("#race-question", "Enter")
    page.locator(".lane-words", has_text="<i>town</i>").wait_for()
    assert page.locator("quest-race :is(img, .film b:not([data-part]))").count() == 0
    assert page.evaluate("window.stolen") is None
