"""The lists of documents and conversations in a real browser: states, names, search, undo, and what is asked first."""

from __future__ import annotations

import re

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

HOSTILE = "<img src=x onerror='window.stolen = 1'> & “Prince”"


def add(page, folder, *names: str) -> None:
    for name in names:
        (folder / name).write_text(f"High above the city: {name}")
    page.set_input_files("#document-files input[type=file]", [str(folder / name) for name in names])
    document(page, names[-1]).wait_for()


def document(page, name: str):
    return page.locator("#document-list li", has_text=name)


def conversation(page, title: str):
    return page.locator("#conversation-list li", has_text=title)


def ask(page, question: str) -> None:
    page.fill("#question textarea", question)
    page.press("#question textarea", "Enter")
    page.locator("quest-question[turn]", has_text=question).wait_for()
    page.wait_for_selector("#question button:has-text('Ask')")


def more(row, action: str):
    """An action behind a row's button of three dots."""
    row.locator(".row-more").click()
    return row.locator(".row-actions").get_by_text(action, exact=True)


def wait_for_focus(page, name: str) -> None:
    page.wait_for_function(
        "name => (document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent) === name",
        arg=name,
    )


def test_a_file_is_taken_at_once_and_its_state_follows(open_page, served, tmp_path):
    served.library.reads.clear()
    page = open_page()
    add(page, tmp_path, "book.txt", "locked.pdf", "broken.pdf")
    assert "Being read 40 %" in document(page, "book.txt").inner_text()
    assert document(page, "book.txt").locator("progress").evaluate("bar => bar.value") == 0.4
    assert page.locator("#document-files").inner_text().startswith("Drop")
    served.library.reads.set()
    document(page, "book.txt").filter(has_text="1 page, 1,204 tokens, read").wait_for()
    assert document(page, "book.txt").locator("progress").is_hidden()
    page.locator("#context-bar", has_text="The whole document is in context").wait_for()
    document(page, "broken.pdf").filter(has_text="Failed: broken.pdf is damaged.").wait_for()
    # A password that is wrong, and one that is not.
    box = document(page, "locked.pdf").get_by_label("Password of locked.pdf")
    box.fill("open?")
    box.press("Enter")
    document(page, "locked.pdf").filter(has_text="not its password").wait_for()
    box.fill("sesame")
    document(page, "locked.pdf").get_by_role("button", name="Open").click()
    document(page, "locked.pdf").filter(has_text="1,204 tokens").wait_for()
    assert box.is_hidden()


def test_files_that_come_one_after_the_other_are_all_taken(open_page, served, tmp_path):
    page = open_page()
    for name in ("one.txt", "two.txt", "three.txt"):
        (tmp_path / name).write_text(name)
        # Gradio's zone takes a file once it shows that it is empty, which is soon after the last one is listed.
        page.locator("#document-files").get_by_text("Drop File Here").wait_for()
        page.set_input_files("#document-files input[type=file]", str(tmp_path / name))
        document(page, name).wait_for()


def test_a_failed_document_is_tried_again(open_page, served, tmp_path):
    page = open_page()
    add(page, tmp_path, "broken.pdf")
    retry = document(page, "broken.pdf").get_by_text("Try again")
    retry.wait_for()
    (entry,) = served.library.entries()
    entry.file_name = "mended.pdf"
    retry.click()
    document(page, "broken.pdf").filter(has_text="1,204 tokens").wait_for()


def test_what_there_is_to_say_of_pages_and_encoding_is_said(open_page, served, tmp_path):
    page = open_page()
    add(page, tmp_path, "book.txt")
    (entry,) = served.library.entries()
    entry.picture_pages, entry.unreadable_pages = ("<b>",), ("3", "4", "5", "6", "7")
    entry.assumed_encoding = "Big5 <Chinese>"
    entry.garbled_pages, entry.recognised_pages, entry.can_be_recognised = ("9",), ("11", "12"), True
    served.library.rename(entry.document_id, "book.txt")
    row = document(page, "is a picture")
    row.wait_for()
    text = row.inner_text()
    assert "page <b> is a picture: its text cannot be read" in text
    assert "5 pages unreadable (pages 3, 4, 5 and 2 more)" in text
    assert "encoding not certain, read as Big5 <Chinese>" in text
    assert "the text layer of page 9 is unreadable: text recognition (OCR) is needed" in text
    assert "pages 11 and 12 were recognised in pictures (OCR) and may have errors" in text
    assert row.get_by_role("button", name="Recognise text in pictures of book.txt (OCR)").is_visible()
    entry.recognition = 0.4
    served.library.rename(entry.document_id, "book.txt")
    document(page, "Text is being recognised 40 %").wait_for()
    assert row.get_by_role("button", name="Stop recognising text in book.txt").is_visible()


def test_a_document_is_taken_out_and_added_again_and_removed_for_good_after_a_question(open_page, served, tmp_path):
    page = open_page()
    add(page, tmp_path, "one.txt", "two.txt")
    page.get_by_role("button", name="Take one.txt out of this conversation").click()
    page.get_by_text("1 document more in the library").click()
    others = page.locator("#document-list .other-documents")
    others.get_by_role("button", name="Add one.txt to this conversation").click()
    others.locator("li").wait_for(state="detached")
    page.locator("#context-bar", has_text="2,408").wait_for()
    more(document(page, "one.txt"), "Remove from the library").click()
    question = document(page, "one.txt").locator(".row-question")
    assert "Its file and text and what the model keeps of it (2.0 MiB) go. 1 conversation loses it." in (
        question.inner_text()
    )
    wait_for_focus(page, "Keep")
    page.keyboard.press("Enter")
    question.wait_for(state="hidden")
    wait_for_focus(page, "More for one.txt")
    more(document(page, "one.txt"), "Remove from the library").click()
    question.get_by_role("button", name="Remove").click()
    document(page, "one.txt").wait_for(state="detached")
    assert [entry.name for entry in served.library.entries()] == ["two.txt"]


def test_names_are_changed_in_place_and_are_text(open_page, served, tmp_path):
    page = open_page()
    add(page, tmp_path, "one.txt")
    ask(page, "Where?")
    for row, label in ((document(page, "one.txt"), "one.txt"), (conversation(page, "Where?"), "Where?")):
        more(row, "Rename").click()
        box = page.get_by_label(f"New name of {label}")
        box.fill("Not this")
        box.press("Escape")
        box.wait_for(state="detached")
        wait_for_focus(page, f"More for {label}")
        more(row, "Rename").click()
        box.fill(HOSTILE)
        box.press("Enter")
    for row in (document(page, HOSTILE), conversation(page, HOSTILE)):
        row.wait_for()
        assert row.locator("img").count() == 0
    more(document(page, HOSTILE), "Remove from the library").click()
    page.locator(".row-question", has_text=HOSTILE).wait_for()
    more(conversation(page, HOSTILE), "Delete").click()
    page.locator(".conversation-undo", has_text=f"“{HOSTILE}” deleted.").wait_for()
    assert page.evaluate("window.stolen") is None
    assert page.locator("#library-zone li img").count() == 0


def test_half_a_name_stays_while_the_lists_change(open_page, served, tmp_path):
    page = open_page()
    add(page, tmp_path, "one.txt")
    more(document(page, "one.txt"), "Rename").click()
    box = page.get_by_label("New name of one.txt")
    box.fill("Half a na")
    (tmp_path / "two.txt").write_text("Another")
    open_id = page.locator("quest-live-panel").get_attribute("conversation-id")
    served.add_document(served.conversations[open_id], tmp_path / "two.txt")
    document(page, "two.txt").wait_for()
    page.keyboard.type("me")
    page.keyboard.press("Enter")
    document(page, "Half a name").wait_for()


def test_the_search_field_filters_both_lists(open_page, served, tmp_path):
    page = open_page()
    add(page, tmp_path, "prince.txt", "giant.txt")
    ask(page, "What is a prince?")
    page.click("#new-chat")
    page.wait_for_function("!document.querySelector('quest-question')")
    ask(page, "And the giant?")
    page.fill("#library-search", "prince")
    conversation(page, "And the giant?").wait_for(state="detached")
    assert page.locator("#document-list li").all_inner_texts()[0].startswith("prince.txt")
    assert page.locator("#document-list li").count() == page.locator("#conversation-list li").count() == 1
    page.fill("#library-search", "(\"'*")
    page.get_by_text("No document has these words.").wait_for()
    page.get_by_text("No conversation has these words.").wait_for()
    page.fill("#library-search", "")
    conversation(page, "And the giant?").wait_for()
    assert page.locator("#document-list .other-documents").get_attribute("open") is None


def test_a_deleted_conversation_comes_back(open_page, served):
    page = open_page()
    ask(page, "Where?")
    address = page.url
    more(conversation(page, "Where?"), "Delete").click()
    wait_for_focus(page, "Undo")
    conversation(page, "Where?").wait_for(state="detached")
    page.wait_for_function("!document.querySelector('quest-question')")
    assert page.url != address
    page.keyboard.press("Enter")
    page.locator("quest-question", has_text="Where?").wait_for()
    assert page.url == address
    assert page.locator(".conversation-undo").is_hidden()


def test_conversations_are_exported(open_page, served):
    page = open_page()
    ask(page, "Where?")
    for kind, format_name in (("md", "Markdown"), ("json", "JSON")):
        with page.expect_download() as download:
            more(conversation(page, "Where?"), f"Export {format_name}").click()
        assert re.search(rf"\.{kind}$", download.value.suggested_filename)
        assert "High above the city" in download.value.path().read_text()
        conversation(page, "Where?").locator(".row-more").click()
