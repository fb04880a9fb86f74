"""Office documents that are damaged, locked, or made to do harm; what whole ones say, the corpus shows."""

import zipfile
from pathlib import Path

import pytest

from app.library import (
    DamagedDocumentError,
    NoTextError,
    ReadLimitExceeded,
    ReadLimits,
    UnsupportedFormatError,
    read_document,
)

CORPUS = Path(__file__).parents[4] / "assets" / "corpus"
WORD_FILE = CORPUS / "docx" / "tables.docx"


def changed(source: Path, target: Path, part: str, change) -> Path:
    """A copy of an office document with a part changed."""
    with zipfile.ZipFile(source) as whole, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in whole.namelist():
            content = whole.read(name)
            archive.writestr(name, change(content) if name == part else content)
    return target


@pytest.mark.parametrize(
    "declared",
    [b'<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>', b'<!DOCTYPE a [<!ENTITY e "&f;&f;"><!ENTITY f "x">]>'],
)
def test_entities_are_refused(tmp_path, declared):
    path = changed(
        WORD_FILE, tmp_path / "harm.docx", "word/document.xml", lambda xml: xml.replace(b"?>", b"?>" + declared, 1)
    )
    with pytest.raises(DamagedDocumentError, match=r'"harm.docx" declares entities'):
        read_document(path)


def test_bombs_stop_at_the_limits(tmp_path):
    def filled(xml: bytes) -> bytes:
        return xml.replace(b"</w:body>", b"<!--" + b" " * 20_000_000 + b"--></w:body>")

    path = changed(WORD_FILE, tmp_path / "bomb.docx", "word/document.xml", filled)
    assert path.stat().st_size < 100_000
    with pytest.raises(ReadLimitExceeded, match=r'"bomb.docx" unpacks to more data'):
        read_document(path, limits=ReadLimits(unpacked_bytes=5_000_000))

    def nested(xml: bytes) -> bytes:
        return xml.replace(
            b"</w:body>", b"<w:tbl><w:tr><w:tc>" * 3000 + b"</w:tc></w:tr></w:tbl>" * 3000 + b"</w:body>"
        )

    path = changed(WORD_FILE, tmp_path / "deep.docx", "word/document.xml", nested)
    with pytest.raises(ReadLimitExceeded, match=r'"deep.docx" is nested too deeply'):
        read_document(path)


def test_a_document_is_known_by_its_content(tmp_path):
    for kind in ("docx/strict_form.docx", "pptx/groups_and_columns.pptx", "odt/headings_lists_notes.odt"):
        (tmp_path / "renamed.zip").write_bytes((CORPUS / kind).read_bytes())
        assert read_document(tmp_path / "renamed.zip").page_count > 1


def test_what_is_missing_or_locked_is_said(tmp_path):
    path = changed(WORD_FILE, tmp_path / "cut.docx", "word/document.xml", lambda xml: xml[: len(xml) // 2])
    with pytest.raises(DamagedDocumentError, match=r'"cut.docx" is damaged'):
        read_document(path)
    path = changed(WORD_FILE, tmp_path / "none.docx", "word/document.xml", lambda xml: xml.replace(b"w:t>", b"w:x>"))
    with pytest.raises((NoTextError, DamagedDocumentError), match=r'"none.docx"'):
        read_document(path)
    locked = changed(
        CORPUS / "odt" / "changes_tables_boxes.odt",
        tmp_path / "locked.odt",
        "META-INF/manifest.xml",
        lambda xml: xml.replace(b"/></", b"><manifest:encryption-data/></manifest:file-entry></", 1),
    )
    with pytest.raises(UnsupportedFormatError, match=r'"locked.odt" is protected with a password'):
        read_document(locked)


def test_a_damaged_slide_does_not_cost_the_others(tmp_path):
    source = CORPUS / "pptx" / "groups_and_columns.pptx"
    path = changed(source, tmp_path / "torn.pptx", "ppt/slides/slide2.xml", lambda xml: xml[:200])
    document = read_document(path)
    assert (document.page_count, document.unreadable_pages) == (3, ("2",))
