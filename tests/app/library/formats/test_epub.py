"""EPUB books: reading order, titles, rights management, damaged and malicious containers."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from app.library import (
    DamagedDocumentError,
    NoTextError,
    ReadLimitExceeded,
    ReadLimits,
    UnsupportedFormatError,
    page_notes,
    read_document,
)

CONTAINER = """<?xml version="1.0"?><container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0">
<rootfiles><rootfile full-path="OEBPS/content.opf" media-type="application/oebps-package+xml"/></rootfiles>
</container>"""
NAVIGATION = '<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>'


def write_epub(
    path: Path, chapters: Mapping[str, str], extra: Mapping[str, str] | None = None, items: str = ""
) -> Path:
    """Write an EPUB with `chapters` (file name to markup) in its spine, in their order, and `extra` files."""
    manifest = "".join(
        f'<opf:item id="c{n}" href="{name}" media-type="application/xhtml+xml"/>' for n, name in enumerate(chapters)
    )
    spine = "".join(f'<opf:itemref idref="c{n}"/>' for n in range(len(chapters)))
    package = (
        '<?xml version="1.0"?><opf:package xmlns:opf="http://www.idpf.org/2007/opf"><opf:metadata/>'
        f"<opf:manifest>{manifest}{items}</opf:manifest><opf:spine>{spine}</opf:spine></opf:package>"
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", "application/epub+zip", zipfile.ZIP_STORED)
        archive.writestr("META-INF/container.xml", CONTAINER)
        archive.writestr("OEBPS/content.opf", package)
        for name, content in {**{f"OEBPS/{name}": text for name, text in chapters.items()}, **(extra or {})}.items():
            archive.writestr(name, content)
    return path


def xhtml(body: str) -> str:
    return (
        '<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title/>'
        f'<script src="x.js"/></head><body>{body}</body></html>'
    )


def labels_and_texts(path: Path) -> list[tuple[str, str]]:
    return [(page.page_label, page.text) for page in read_document(path).document_pages]


def test_chapters_come_in_the_order_of_the_spine(tmp_path):
    chapters = {"z.xhtml": xhtml("<h1>Opening</h1><p>First.</p>"), "a.xhtml": xhtml("<p>Second.</p>")}
    assert labels_and_texts(write_epub(tmp_path / "book.epub", chapters)) == [
        ("Opening", "Opening\n\nFirst."),
        ("Opening (2)", "Second."),
    ]


def test_titles_come_from_the_contents(tmp_path):
    contents = xhtml('<nav><ol><li><a href="text/one%20a.xhtml#top">The Beginning</a></li></ol></nav>')
    chapters = {"text/one a.xhtml": xhtml("<p>First.</p>"), "text/two.xhtml": xhtml("<h2>" + "long " * 40 + "</h2>")}
    path = write_epub(tmp_path / "book.epub", chapters, {"OEBPS/nav.xhtml": contents}, NAVIGATION)
    assert [label for label, _ in labels_and_texts(path)] == ["The Beginning", "The Beginning (2)"]


def test_titles_come_from_an_older_books_contents(tmp_path):
    ncx = (
        '<?xml version="1.0"?><ncx><navMap><navPoint id="p"><navLabel><text>Chapter One</text></navLabel>'
        '<content src="one.xhtml"/></navPoint></navMap></ncx>'
    )
    item = '<item id="ncx" href="toc.ncx" media-type="application/x-dtbncx+xml"/>'
    path = write_epub(tmp_path / "old.epub", {"one.xhtml": xhtml("<p>First.</p>")}, {"OEBPS/toc.ncx": ncx}, item)
    assert labels_and_texts(path) == [("Chapter One", "First.")]


def test_long_chapter_becomes_several_pages(tmp_path):
    body = "<h1>Long</h1>" + "".join(f"<p>{'Some words in a row. ' * 25}</p>" for _ in range(20))
    pages = labels_and_texts(write_epub(tmp_path / "book.epub", {"one.xhtml": xhtml(body)}))
    assert [label for label, _ in pages] == ["Long", "Long (2)", "Long (3)", "Long (4)"]
    assert sum(text.count("Some words") for _, text in pages) == 500


def test_missing_chapter_does_not_cost_the_others(tmp_path):
    path = write_epub(tmp_path / "whole.epub", {"one.xhtml": xhtml("<p>One.</p>"), "two.xhtml": xhtml("<p>Two.</p>")})
    torn = tmp_path / "torn.epub"
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(torn, "w") as archive:
        for name in whole.namelist():
            if not name.endswith("one.xhtml"):
                archive.writestr(name, whole.read(name))
    document = read_document(torn)
    assert [page.text for page in document.document_pages] == ["", "Two."]
    assert document.unreadable_pages == ("1",)


def test_rights_management_is_refused_and_font_obfuscation_is_not(tmp_path):
    def encryption(algorithm: str) -> dict[str, str]:
        return {
            "META-INF/encryption.xml": '<encryption xmlns:enc="http://www.w3.org/2001/04/xmlenc#"><enc:EncryptedData>'
            f'<enc:EncryptionMethod Algorithm="{algorithm}"/></enc:EncryptedData></encryption>'
        }

    chapters = {"one.xhtml": xhtml("<p>One.</p>")}
    locked = write_epub(tmp_path / "locked.epub", chapters, encryption("http://www.w3.org/2001/04/xmlenc#aes128-cbc"))
    with pytest.raises(UnsupportedFormatError, match=r'"locked.epub" is protected by digital rights management'):
        read_document(locked)
    free = write_epub(tmp_path / "free.epub", chapters, encryption("http://www.idpf.org/2008/embedding"))
    assert labels_and_texts(free) == [("1", "One.")]


def test_zip_bomb_stops_at_the_limit(tmp_path):
    path = write_epub(tmp_path / "bomb.epub", {"one.xhtml": xhtml("<p>" + "0" * 20_000_000 + "</p>")})
    assert path.stat().st_size < 100_000
    with pytest.raises(ReadLimitExceeded, match=r'"bomb.epub" unpacks to more data than the 4\.8 MiB.*Split it into'):
        read_document(path, limits=ReadLimits(unpacked_bytes=5_000_000))


def test_book_of_pictures_has_no_text(tmp_path):
    with pytest.raises(NoTextError, match='"comic.epub" holds no text'):
        read_document(write_epub(tmp_path / "comic.epub", {"one.xhtml": xhtml('<img src="1.png"/>')}))


def test_picture_among_the_chapters_is_named_and_the_cover_is_not(tmp_path):
    picture = xhtml('<img src="1.png" alt=""/>')
    chapters = {"cover.xhtml": picture, "one.xhtml": xhtml("<p>One.</p>"), "map.xhtml": picture, "end.xhtml": xhtml("")}
    contents = xhtml('<nav><ol><li><a href="map.xhtml">Map of the island</a></li></ol></nav>')
    document = read_document(write_epub(tmp_path / "b.epub", chapters, {"OEBPS/nav.xhtml": contents}, NAVIGATION))
    assert [page.text for page in document.document_pages] == ["One.", ""]
    assert document.picture_pages == ("Map of the island",)
    assert page_notes(document) == ['page "Map of the island" is a picture: its text cannot be read']


@pytest.mark.parametrize("kept_share", [0.3, 0.9])
def test_truncated_book_is_damaged(tmp_path, kept_share):
    path = write_epub(tmp_path / "cut.epub", {"one.xhtml": xhtml("<p>Words.</p>" * 2000)})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept_share)])
    with pytest.raises(DamagedDocumentError, match='"cut.epub" is damaged'):
        read_document(path)


def test_other_zip_files_are_not_books(tmp_path):
    with zipfile.ZipFile(tmp_path / "archive.epub", "w") as archive:
        archive.writestr("notes.txt", "words")
    with pytest.raises(DamagedDocumentError, match='"archive.epub" is damaged'):
        read_document(tmp_path / "archive.epub")
