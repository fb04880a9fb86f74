"""Text recognition: what is asked of Tesseract, what becomes of its answers, and of the document they are about."""

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from app.chat.assistant import Assistant
from app.errors import UserFacingError
from app.library import DocumentError, NoTextError, UnsupportedFormatError, page_notes, read_document
from app.library.library import Library
from app.library.reader import ReadingStopped
from app.library.tesseract import TextRecognition, find_recognition
from app.settings import AppSettings
from app.store.database import Database

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("pypdfium2")

WAIT_S = 60
# Answers as Tesseract does, and checks what it is asked: {behaviour} decides what it makes of a page.
STAND_IN = """#!{python}
import sys, time
if "--list-langs" in sys.argv:
    print("List of available languages in x (3):\\neng\\ndeu\\nosd")
    sys.exit()
picture = sys.stdin.buffer.read()
kind, width, height, white = picture.split(None, 4)[:4]
assert kind == b"P5" and white == b"255" and len(picture) == len(b" ".join((kind, width, height, white))) + 1 + (
    int(width) * int(height))
assert sys.argv[1:5] == ["-", "-", "-l", "eng+deu"] and sys.argv[-1] == "tsv", sys.argv
def show(rows):
    print("level page_num block_num par_num line_num word_num left top width height conf text".replace(" ", "\\t"))
    for block, line, confidence, word in rows:
        print(f"5\\t1\\t{{block}}\\t1\\t{{line}}\\t1\\t0\\t0\\t9\\t9\\t{{confidence}}\\t{{word}}")
{behaviour}
"""
READS = 'show([(1, 1, 96, "The"), (1, 1, 95, "lamp"), (1, 2, 91, "burned."), (2, 1, 90, f"{width.decode()}")])'


@pytest.fixture
def tesseract(tmp_path, monkeypatch):
    """Return `tesseract(behaviour)`, which puts a stand-in on the search path and tells how it is run."""

    def install(behaviour: str = READS) -> TextRecognition:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        program = folder / "tesseract"
        program.write_text(STAND_IN.format(python=sys.executable, behaviour=behaviour))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return find_recognition()

    return install


@pytest.fixture
def scan(tmp_path) -> Path:
    """A PDF of two pages that are pictures."""
    pages = [Image.new("L", (300, 200), 240) for _ in range(2)]
    for page in pages:
        page.putpixel((5, 5), 0)
    pages[0].save(tmp_path / "scan.pdf", save_all=True, append_images=pages[1:], resolution=72)
    return tmp_path / "scan.pdf"


def test_pages_that_are_pictures_are_recognised(tesseract, scan):
    recognition, progress = tesseract(), []
    assert (recognition.languages, recognition.finds_orientation) == ("eng+deu", True)
    document = read_document(scan, recognition=recognition, on_progress=progress.append)
    # 300 dots an inch of a page of 300 points.
    assert [page.text for page in document.document_pages] == ["The lamp\nburned.\n\n1250"] * 2
    assert document.recognised_pages == ("1", "2") and document.picture_pages == ()
    assert [one.done_pages for one in progress] == [1, 2]
    assert page_notes(document) == ["pages 1 and 2 were recognised in pictures (OCR) and may have errors"]


@pytest.mark.parametrize(
    ("behaviour", "error_class", "words"),
    [
        ('show([(1, 1, 20, "ee"), (1, 1, 31, "~a")])', NoTextError, "No text was recognised"),
        ("show([])", NoTextError, "Choose other languages"),
        ('sys.exit("Failed loading language")', NoTextError, "No text was recognised"),
    ],
)
def test_what_is_not_recognised_is_no_text(tesseract, scan, behaviour, error_class, words):
    with pytest.raises(error_class, match=words):
        read_document(scan, recognition=tesseract(behaviour))


def test_only_pdf_pages_are_recognised(tesseract, tmp_path):
    (tmp_path / "a.txt").write_text("words")
    with pytest.raises(UnsupportedFormatError, match="PDF pages only"):
        read_document(tmp_path / "a.txt", recognition=tesseract())


def test_a_document_is_recognised_in_the_library(tesseract, scan, tmp_path):
    tesseract()
    replaced: list[str] = []
    database = Database.open(tmp_path / "data")
    library = Library(tmp_path / "data", database, on_new_text=replaced.append)
    document_id = library.add(scan).document_id
    failed = library.wait(document_id, WAIT_S)
    assert (failed.state, failed.failure, failed.can_be_recognised) == ("failed", "NoTextError", True)
    library.set_tokens(document_id, "a model", 0, exact=True)
    library.recognise(document_id)
    read = library.wait_recognised(document_id, WAIT_S)
    assert (read.state, read.recognised_pages, read.recognition, read.failure) == ("read", ("1", "2"), None, "")
    assert not read.can_be_recognised and replaced == [document_id]
    assert library.tokens(document_id, "a model") is None
    assert [hit.page_label for hit in library.search("lamp burned")] == ["1", "2"]
    assert "lamp" in library.document(document_id).document_pages[0].text
    library.close()
    database.close()


def test_a_recognition_can_be_stopped_and_leaves_the_document_as_it_was(tesseract, scan, tmp_path):
    tesseract("time.sleep(100)")
    database = Database.open(tmp_path / "data")
    library = Library(tmp_path / "data", database)
    document_id = library.add(scan).document_id
    library.wait(document_id, WAIT_S)
    library.recognise(document_id)
    assert library.entry(document_id).recognition == 0.0
    library.stop_recognising(document_id)
    entry = library.wait_recognised(document_id, WAIT_S)
    assert (entry.state, entry.recognition, entry.recognition_message) == ("failed", None, "")
    library.recognise(document_id)
    library.remove(document_id)
    assert library.entry_or_none(document_id) is None
    library.close()
    database.close()


def test_the_model_reads_the_new_text(tesseract, scan, make_pdf, tiny_model_folder, tmp_path):
    """A document that was read, in part, and then recognised: its tokens, and what the model has read, follow."""
    from pypdf import PdfWriter

    tesseract()
    mixed = PdfWriter(clone_from=make_pdf([["The harbour lay still."]]))
    mixed.append(scan)
    mixed.write(tmp_path / "mixed.pdf")
    settings = AppSettings(data_dir=tmp_path / "data", model=str(tiny_model_folder), device="cpu", dtype="float32")
    with closing(Assistant(settings)) as assistant:
        assistant.wait_until_ready()
        conversation = assistant.new_conversation()
        document_id = assistant.add_document(conversation, tmp_path / "mixed.pdf").document_id
        wait_until(lambda: document_id in conversation.read_ids)
        entry, tokens = assistant.library.entry(document_id), assistant.document_tokens(document_id).tokens
        assert (entry.state, entry.picture_pages, entry.can_be_recognised) == ("read", ("2", "3"), True)
        assistant.library.recognise(document_id)
        wait_until(lambda: assistant.library.entry(document_id).recognised_pages == ("2", "3"))
        wait_until(lambda: assistant.library.entry(document_id).recognition is None)
        wait_until(lambda: document_id in conversation.read_ids)
        assert assistant.documents(conversation)[0].document_pages[1].text.startswith("The lamp")
        assert assistant.document_tokens(document_id).tokens > tokens
        assert assistant.reading(document_id, conversation).stage == "read"


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_reading_with_recognition_can_be_stopped(tesseract, scan):
    stop = threading.Event()
    stop.set()
    with pytest.raises(ReadingStopped):
        read_document(scan, recognition=tesseract("time.sleep(100)"), stop=stop)


def test_what_is_missing_is_said(tesseract, monkeypatch):
    tesseract()
    with pytest.raises(UserFacingError, match=r"no language fra\. Installed are: eng, deu, osd.*tesseract-ocr-fra"):
        find_recognition("eng+fra")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserFacingError, match=r"not installed\. Install it"):
        find_recognition()


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="Tesseract is not installed")
def test_the_real_one_reads_a_real_page(tmp_path):
    from PIL import ImageDraw, ImageFont

    page = Image.new("L", (1240, 600), 255)
    text = "The harbour lay still in the morning light,\nand the lighthouse keeper had left his post."
    ImageDraw.Draw(page).multiline_text((100, 150), text, font=ImageFont.load_default(44), fill=0, spacing=18)
    page.save(tmp_path / "scan.pdf", resolution=150)
    try:
        recognition = find_recognition("eng")
    except DocumentError:
        pytest.skip("Tesseract has no English")
    read = read_document(tmp_path / "scan.pdf", recognition=recognition).document_pages[0].text
    assert "the lighthouse keeper had left his post" in " ".join(read.split())
