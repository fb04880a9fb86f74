"""The corpus of PDFs with right texts beside them: the reader must go on reading them right."""

from pathlib import Path

import pytest

from app.library import NoTextError, read_document
from app.library.formats.pdf import read_pages
from app.library.limits import ReadLimits
from app.measure.evaluation.extraction.text_accuracy import character_accuracy, order_accuracy

CORPUS = Path(__file__).parents[4] / "assets" / "corpus" / "pdf"
KINDS = sorted(folder.name for folder in CORPUS.iterdir())


def pages_of(name: str) -> list:
    return list(read_pages(CORPUS / name, None, ReadLimits()))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_fault_is_read_right(kind):
    for path in sorted((CORPUS / kind).glob("*.pdf")):
        right = path.with_suffix(".txt").read_text(encoding="utf-8")
        try:
            found = "\n".join(page.text for page in read_pages(path, None, ReadLimits()))
        except NoTextError:
            found = ""
        assert character_accuracy(found, right.replace("\f", "\n")) >= 0.95, path.name
        assert order_accuracy(found, right.replace("\f", "\n")) >= 0.9, path.name


def test_document_without_a_usable_text_layer_is_refused_with_what_to_do():
    with pytest.raises(NoTextError, match=r'"every_page.pdf" has a text layer that cannot be read.*OCR'):
        read_document(CORPUS / "garbled" / "every_page.pdf")


def test_only_the_garbled_page_of_a_document_is_left_out():
    pages = pages_of("garbled/one_page_of_two.pdf")
    assert [page.is_garbled for page in pages] == [True, False]
    assert pages[0].text == "" and pages[0].readable and pages[1].text


def test_page_that_is_a_picture_is_named():
    assert [page.is_picture for page in pages_of("scans/picture_between_pages.pdf")] == [False, True, False]


def test_rows_of_a_table_are_lines_with_separated_cells():
    lines = pages_of("tables/ruled_with_wrapped_cells.pdf")[0].text.split("\n")
    assert lines[0] == "Name | What it is made of | Where it stands"
    assert lines[1].startswith("Prince | Leaves of fine gold over lead, with two bright sapphires | On a tall column")
    assert len(lines) == 3


def test_header_is_said_once_and_numbers_never():
    pages = pages_of("running_lines/header_and_number.pdf")
    assert pages[0].text.startswith("A Handbook of Swallows\n")
    assert not any("Handbook" in page.text for page in pages[1:])
    assert not any(page.text.endswith(str(number)) for number, page in enumerate(pages, start=11))


def test_word_across_a_page_break_stands_on_the_page_where_it_begins():
    first, second, _ = pages_of("broken_words/across_pages.pdf")
    assert first.text.endswith("he was quite extraordinarily") and second.text.startswith("happy with it.")


def test_program_keeps_its_indentation():
    assert (
        "\n    for day in range(days):\n        swallow.fly(day)        # to Egypt\n"
        in pages_of("lists_and_code/program.pdf")[0].text
    )
