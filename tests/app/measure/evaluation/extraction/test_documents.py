"""The measures of read text, and `eval documents` on a folder."""

import shutil
from pathlib import Path

import pytest

from app.errors import UserFacingError
from app.measure.evaluation.extraction.documents import CORPUS, measure_documents
from app.measure.evaluation.extraction.text_accuracy import character_accuracy, order_accuracy


def test_characters_do_not_mind_the_order_and_order_does():
    assert character_accuracy("two one three", "one two three") == 1.0
    assert order_accuracy("two one three", "one two three") == 0.0
    assert order_accuracy("one two three", "one two three") == 1.0


def test_what_is_missing_or_too_much_or_torn_costs_characters():
    right = "the swallow flew to Egypt"
    assert 0.5 < character_accuracy("the swallow flew", right) < 0.9
    assert 0.5 < character_accuracy(f"{right} {right}", right) < 0.9
    assert 0.8 < character_accuracy("the swal low flew to Egypt", right) < 1.0


def test_form_alone_costs_nothing():
    assert character_accuracy("area | 10² m", "area 102\nm") == 1.0
    assert order_accuracy("吾輩 は猫", "吾輩は猫") == 1.0


def test_nothing_read_of_nothing_is_right():
    assert character_accuracy("", "") == order_accuracy("", "") == 1.0
    assert character_accuracy("noise", "") == 0.0


def test_a_folder_is_compared_with_pypdf(tmp_path: Path):
    shutil.copy(CORPUS / "pdf" / "columns" / "row_by_row.pdf", tmp_path)
    result = measure_documents(tmp_path, on_progress=lambda message: None)
    assert result["rows"][0]["files"] == 1 and result["worse"] == []
    with pytest.raises(UserFacingError, match="holds no PDF"):
        measure_documents(tmp_path / "none", on_progress=lambda message: None)
