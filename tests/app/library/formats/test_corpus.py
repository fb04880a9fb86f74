"""The corpus of small documents, one for each fault: every word in its place, every page under its name."""

import json
from pathlib import Path

import pytest

from app.library import SUPPORTED_SUFFIXES, ReadLimits
from app.library.formats import detect_format, load_reader

CORPUS = Path(__file__).parents[4] / "assets" / "corpus"
# Of PDF pages, which nobody can read without faults, shares are measured: `eval documents`.
KINDS = ("epub", "html", "docx", "pptx", "odt", "text")


def documents() -> list[Path]:
    found = (path for kind in KINDS for path in sorted((CORPUS / kind).glob("*")))
    return [path for path in found if path.suffix in SUPPORTED_SUFFIXES and path.suffix != ".txt"]


def test_the_corpus_has_all_kinds():
    assert {path.parent.name for path in documents()} == set(KINDS)


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_a_document_is_read_as_its_author_wrote_it(path):
    # In this process: what the reader process does is tested elsewhere, and starting one takes longer than reading.
    read = list(load_reader(detect_format(path))(path, None, ReadLimits()))
    right = path.with_suffix(".txt").read_text(encoding="utf-8").split("\f")
    assert [page.label for page in read] == json.loads(path.with_suffix(".pages.json").read_text("utf-8"))
    assert [page.text.split() for page in read] == [text.split() for text in right]
