"""The lists of documents and conversations in a real browser: states, names, search, undo, and what is asked first."""

from __future__ import annotations

import re
import time

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# What /library tells is heard so much later; `ticked` gets each state of the first document's tick.
LATE_LISTINGS = """
const fetchAtOnce = window.fetch;
window.fetch = async (resource, options) => {
  const response = await fetchAtOnce(resource, options);
  if (String(resource.url ?? resource).startsWith("library?")) await new Promise((resolve) => setTimeout(resolve, 400));
  return response;
};
window.ticked = [];
const watch = () => {
  const { checked } = document.querySelector("#document-list li input[type=checkbox]");
  if (ticked.at(-1) !== checked) ticked.push(checked);
  requestAnimationFrame(watch);
};
watch();
"""
HOSTILE = "<img src=x onerror='window.stolen = 1'> & “Prince”"


def add(page, folder, *names: str) -> None:
    for name in names:
        (folder / name).write_text(f"High above the city: {name}")
    page.set_input_files("#document-files input[type=file]", [str(folder / name) for name in names])
    # It is in the library a moment before it is in the chat.
    document(page, names[-1]).locator(".row-tick :checked").wait_for()


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


def wait_until(page, condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        page.wait_for_timeout(10)


def test_a_file_is_taken_at_once_and_its_state_follows(open_page, served, tmp_path):
    served.library.reads.clear()
    page = open_page()
    add(page, tmp_path, "book.txt", "locked.pdf", "broken.pdf")
    assert "Being read 40 %" in document(page, "book.txt").inner_text()
    assert document(page, "book.txt").locator("progress").evaluate("bar => bar.value") == 0.4
    served.library.reads.set()
    document(page, "book.txt").filter(has_text="1 page, 1,204 tokens, read").wait_for()
    assert document(page, "book.txt").locator("progress").get_attribute("aria-hidden") == "true"
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


def drop(page, *entries: dict) -> None:
    """Drop files and folders, which a script can only make up."""
    page.evaluate(
        """entries => {
          const items = entries.map(({ name, text, folder }) => ({
            kind: "file",
            webkitGetAsEntry: () => ({ isDirectory: Boolean(folder), name }),
            getAsFile: () => new File([text ?? ""], name),
          }));
          document.querySelector("quest-add-documents").takeDropped({ items });
        }""",
        list(entries),
    )


def test_of_what_is_dropped_the_readable_is_added_and_the_rest_named_with_what_to_do(open_page, served):
    page = open_page()
    toasts = page.locator(".toast-body")
    movie, evil = "film <img src=x>.avi", "evil.exe"
    drop(
        page,
        {"name": movie, "text": "RIFF"},
        {"name": "one.txt", "text": "High above"},
        {"name": "empty.pdf"},
        {"name": evil, "text": "MZ"},
        {"name": "papers", "folder": True},
        {"name": "two.txt", "text": "the city"},
    )
    document(page, "two.txt").wait_for()
    problems = page.locator(".add-problems")
    problems.get_by_text("What can be read").wait_for()
    told = problems.locator("p").all_inner_texts()
    assert told[0] == '"papers" is a folder. Open it and drop the documents in it.'
    assert told[1].startswith(f'"{movie}" is in a format that cannot be read.')
    assert told[2] == '"empty.pdf" is empty. Check that it was saved or downloaded completely.'
    assert told[3].startswith(f'"{evil}" is in a format') and len(told) == 5
    assert told[4] == (
        "What can be read: PDF, EPUB, Word, PowerPoint, OpenDocument texts, web pages, text and Markdown."
    )
    assert document(page, "one.txt").is_visible() and page.locator("#document-list li").count() == 2
    assert problems.locator("img").count() == toasts.count() == 0
    page.get_by_label("Close this message").click()
    assert problems.is_hidden()
    wait_for_focus(page, "Add documents")
    # Larger than what is read: said without sending it. And what is there already is told.
    page.evaluate("document.querySelector('quest-add-documents').setAttribute('most-bytes', '3000')")
    drop(page, {"name": "long.txt", "text": "x" * 4000}, {"name": "again.txt", "text": "High above"})
    page.locator(".add-problems.is-hint").or_(problems).get_by_text("at most 2.9 KiB are read").wait_for()
    problems.get_by_text('"again.txt" is in this chat already.').wait_for()
    # Gone, the server says nothing: the page does.
    page.route("**/library/documents*", lambda route: route.abort())
    drop(page, {"name": "three.txt", "text": "3"})
    problems.get_by_text("Quest Chat cannot be reached. Is it still running?").wait_for()


def test_a_sample_book_is_a_row_that_says_what_reading_it_takes(open_page, served, tmp_path):
    sample = {"document_id": "s1", "title": "A Novel", "author": "An Author", "page_count": 147, "reading": None}
    served.samples = [sample]
    page = open_page()
    row = document(page, "A Novel")
    row.get_by_text("How long reading it takes is told when the model is loaded.").wait_for()
    assert "An Author. 147 pages" in row.inner_text() and row.locator(".row-more").is_hidden()
    time = {"seconds": 130.0, "is_least": False, "is_of_this_run": False}
    reading = {"tokens": "about 54,300", "window_tokens": 4096, "window_share": 0.05, "fits": False}
    for measured, words in ((None, "Time to read those: not measured on this machine"), (time, "about 2 min, as last")):
        sample["reading"] = reading | {"reading": measured}
        served._tell_library()
        row.get_by_text(words).wait_for()
    assert "Longer than the model's window of 4,096 tokens" in row.inner_text() and "up to 5 %" in row.inner_text()
    page.keyboard.press("Tab")
    row.get_by_role("checkbox").focus()
    page.keyboard.press("Space")
    document(page, "A Novel").filter(has_text="1,204 tokens, read").wait_for()
    wait_for_focus(page, "Include A Novel in this chat")
    assert row.locator(".row-more").is_visible()


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
    names = page.locator("#document-list .document-name")
    order = names.all_inner_texts()
    tick = page.get_by_role("checkbox", name="Include one.txt in this chat")
    tick.focus()
    for count in (1, 2):
        page.keyboard.press("Space")
        page.locator("#context-bar", has_text=f"{1204 * count:,}").wait_for()
        assert tick.is_checked() == (count == 2)
        # No row moves, and the focus stays.
        assert names.all_inner_texts() == order
        wait_for_focus(page, "Include one.txt in this chat")
    more(document(page, "one.txt"), "Details").click()
    assert "Kept by the model\n2.0 MiB" in document(page, "one.txt").locator(".row-details").inner_text()
    wait_for_focus(page, "More for one.txt")
    more(document(page, "one.txt"), "Remove from the library").click()
    question = document(page, "one.txt").locator(".row-question")
    assert "Its file and text and what the model keeps of it (2.0 MiB) go. 1 chat loses it." in (
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


def test_what_is_added_goes_into_the_chat_that_is_open(open_page, served, tmp_path):
    page = open_page()
    add(page, tmp_path, "one.txt")
    ask(page, "First?")
    for name in ("two.txt", "three.txt"):
        page.click("#new-chat")
        page.locator("#messages .start").wait_for()
        add(page, tmp_path, name)
        ask(page, f"What of {name}?")
    documents = [
        [served.library.entry(one).name for one in conversation.document_ids]
        for conversation in served.conversations.values()
    ]
    assert documents == [["one.txt"], ["two.txt"], ["three.txt"]]


def test_what_waits_behind_an_upload_goes_into_the_chat_in_which_it_was_added(open_page, served, tmp_path):
    page = open_page()
    ask(page, "First?")
    held = []
    page.route("**/library/documents?*", lambda route: route.continue_() if held else held.append(route))
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_text(f"High above the city: {name}")
    page.set_input_files("#document-files input[type=file]", str(tmp_path / "one.txt"))
    wait_until(page, lambda: held)
    page.click("#new-chat")
    page.locator("#messages .start").wait_for()
    page.set_input_files("#document-files input[type=file]", str(tmp_path / "two.txt"))
    held[0].continue_()
    document(page, "two.txt").locator(".row-tick :checked").wait_for()
    documents = [
        [served.library.entry(one).name for one in conversation.document_ids]
        for conversation in served.conversations.values()
    ]
    assert documents == [["one.txt"], ["two.txt"]]


def test_a_tick_stays_as_it_was_clicked_last(open_page, served, tmp_path, monkeypatch):
    """What the server told before it had done what was clicked undoes nothing, however late it is heard."""
    page = open_page()
    add(page, tmp_path, "one.txt")
    (conversation,) = [one for one in served.conversations.values() if one.document_ids]
    page.evaluate(LATE_LISTINGS)
    tick = page.get_by_role("checkbox", name="Include one.txt in this chat")
    tick.click()
    wait_until(page, lambda: not conversation.document_ids)
    tick.click()
    wait_until(page, lambda: conversation.document_ids)
    page.wait_for_timeout(1500)
    assert page.evaluate("ticked") == [True, False, True]
    # Where that is refused, the tick is as it was.
    monkeypatch.setattr(served, "remove_document", lambda *_: served.library.entry("none"))
    tick.click()
    page.wait_for_timeout(1500)
    assert page.evaluate("ticked") == [True, False, True, False, True]


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
    open_id = page.locator("quest-reading").get_attribute("conversation-id")
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
    assert page.locator("#library-found").inner_text() == "1 document, 1 chat found."
    page.fill("#library-search", "(\"'*")
    page.get_by_text("No document has these words.").wait_for()
    page.get_by_text("No chat has these words.").wait_for()
    page.press("#library-search", "Escape")
    conversation(page, "And the giant?").wait_for()
    assert page.locator("#document-list li").count() == 2
    assert page.locator("#library-found").inner_text() == ""


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
    wait_for_focus(page, "Where?")


def test_conversations_are_exported(open_page, served):
    page = open_page()
    ask(page, "Where?")
    for kind, format_name in (("md", "Markdown"), ("json", "JSON")):
        with page.expect_download() as download:
            more(conversation(page, "Where?"), f"Export {format_name}").click()
        assert re.search(rf"\.{kind}$", download.value.suggested_filename)
        assert "High above the city" in download.value.path().read_text()
        conversation(page, "Where?").locator(".row-more").click()
