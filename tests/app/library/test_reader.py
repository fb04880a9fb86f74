"""Reading in a separate process: what the caller gets, and that the process always ends."""

import json
import os
import signal
import subprocess
import sys
import zlib
from dataclasses import asdict
from pathlib import Path

import pytest

from app.errors import UserFacingError
from app.library import (
    DamagedDocumentError,
    DocumentError,
    EmptyDocumentError,
    ReadLimitExceeded,
    ReadLimits,
    ReadProgress,
    UnsupportedFormatError,
    read_document,
)

PROJECT_FOLDER = Path(__file__).parents[3]
needs_resource_limits = pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux only")


def slow_pdf(path: Path) -> Path:
    """A PDF of a few kilobytes whose only page takes minutes to read and gigabytes to hold."""
    operators = zlib.compress(b"BT /F1 9 Tf " + b"(a) Tj 1 0 0 1 0 0 Tm " * 3_000_000 + b"ET", 9)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(operators), operators),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    data = b"%PDF-1.4\n"
    offsets = []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    data += b"xref\n0 6\n0000000000 65535 f \n" + table
    data += b"trailer << /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % data.index(b"xref\n0 6")
    path.write_bytes(data)
    return path


def test_document_has_identity_name_and_all_pages(make_pdf, reader_processes):
    path = make_pdf([["First page."], ["Second page."]], name="two pages.pdf")
    document = read_document(path)
    assert [(page.index, page.page_label, page.text) for page in document.document_pages] == [
        (0, "1", "First page."),
        (1, "2", "Second page."),
    ]
    assert document.name == "two pages.pdf" and document.path == path
    assert document.page_count == 2 and document.text_characters == len("First page.Second page.")
    assert len(document.document_id) == 32 and int(document.document_id, 16) >= 0
    assert len(reader_processes) == 1


def test_identity_follows_the_content_not_the_name(tmp_path):
    for name, text in (("a.txt", "same words"), ("b.txt", "same words"), ("c.txt", "other words")):
        (tmp_path / name).write_text(text)
    a, b, c = (read_document(tmp_path / name).document_id for name in ("a.txt", "b.txt", "c.txt"))
    assert a == b != c


def test_progress_counts_every_page(make_pdf):
    seen: list[ReadProgress] = []
    read_document(make_pdf([["One."], ["Two."], ["Three."]]), on_progress=seen.append)
    assert seen == [ReadProgress(1, 3), ReadProgress(2, 3), ReadProgress(3, 3)]


def test_exception_of_the_caller_stops_the_process(make_pdf, reader_processes):
    def give_up(progress: ReadProgress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_document(make_pdf([["One."]] * 300), on_progress=give_up)
    assert len(reader_processes) == 1


def test_abandoned_pages_stop_the_process(make_pdf, reader_processes):
    from app.library.reader import _pages_from_process

    path = make_pdf([["One."]] * 300)
    request = {"path": str(path), "format": "pdf", "password": None, "limits": asdict(ReadLimits())}
    pages = _pages_from_process(request, path, ReadLimits())
    assert next(pages)["text"] == "One."
    assert reader_processes[0].poll() is None
    pages.close()
    assert reader_processes[0].returncode is not None


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (ReadLimits(wall_clock_s=1.5), "took longer than 1.5 seconds"),
        (ReadLimits(stall_s=1.5), "no further page in 1.5 seconds"),
    ],
)
def test_hanging_page_is_killed(tmp_path, reader_processes, limits, words):
    path = slow_pdf(tmp_path / "slow.pdf")
    with pytest.raises(ReadLimitExceeded, match=words) as raised:
        read_document(path, limits=limits)
    assert '"slow.pdf"' in raised.value.message
    assert reader_processes[0].returncode == -signal.SIGKILL


@needs_resource_limits
def test_memory_bomb_stops_at_its_limit(tmp_path, reader_processes):
    path = slow_pdf(tmp_path / "swelling.pdf")
    with pytest.raises(ReadLimitExceeded, match='"swelling.pdf" needs more than 160 MiB of memory'):
        read_document(path, limits=ReadLimits(memory_bytes=160 << 20, wall_clock_s=60))


@needs_resource_limits
def test_large_text_stops_at_the_memory_limit(tmp_path, reader_processes):
    path = tmp_path / "large.txt"
    path.write_bytes(b"words " * 12_000_000)
    with pytest.raises(ReadLimitExceeded, match="needs more than 128 MiB"):
        read_document(path, limits=ReadLimits(memory_bytes=128 << 20))


@needs_resource_limits
def test_process_that_burns_its_time_alone_is_a_limit_too(tmp_path, reader_processes):
    # Without a wall clock the kernel's limit of CPU time remains: here for a process that nobody watches any more.
    command = (
        "from app.library.limits import ReadLimits, limit_this_process\n"
        "limit_this_process(ReadLimits(wall_clock_s=0.1))\n"
        "while True: pass"
    )
    ended = subprocess.run([sys.executable, "-c", command], cwd=PROJECT_FOLDER, timeout=120)
    assert ended.returncode in (-signal.SIGXCPU, -signal.SIGKILL)


@pytest.mark.parametrize(
    ("signal_number", "error_class"),
    [(signal.SIGSEGV, DamagedDocumentError), (getattr(signal, "SIGKILL", None), ReadLimitExceeded)],
)
def test_crash_of_the_process_is_a_clear_error(make_pdf, reader_processes, signal_number, error_class):
    def crash(progress: ReadProgress) -> None:
        if progress.done_pages == 1:
            os.kill(reader_processes[0].pid, signal_number)

    # More text than a pipe holds would be needed to be sure that it still runs: a page that takes long to come.
    pages = [["Words that take their time to come out of the page."] * 30] * 2000
    with pytest.raises(error_class, match='"made.pdf"'):
        read_document(make_pdf(pages), on_progress=crash)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (ReadLimits(file_bytes=100), "MiB"),
        (ReadLimits(document_pages=2), "3 pages; at most 2"),
        (ReadLimits(text_characters=9), "more than 9 characters: at most 20,000 pages and 9 characters"),
    ],
)
def test_sizes_are_limited(make_pdf, reader_processes, limits, words):
    with pytest.raises(ReadLimitExceeded, match=words):
        read_document(make_pdf([["Some words."]] * 3), limits=limits)


def test_text_with_too_many_pages_names_them(tmp_path):
    (tmp_path / "pages.txt").write_text("words\f" * 5)
    with pytest.raises(ReadLimitExceeded, match='"pages.txt" has more than 4 pages'):
        read_document(tmp_path / "pages.txt", limits=ReadLimits(document_pages=4))


def test_limits_must_be_positive():
    with pytest.raises(ValueError, match="memory_bytes must be positive, not 0"):
        ReadLimits(memory_bytes=0)


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(DocumentError, match='no file ".*gone.pdf"'):
        read_document(tmp_path / "gone.pdf")
    with pytest.raises(DocumentError, match="is a folder"):
        read_document(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(DocumentError, match="a device or a pipe"):
        read_document(tmp_path / "pipe.txt")


@pytest.mark.parametrize("content", [b"", b" \n\t \r\n\f", b"\xef\xbb\xbf \n", b"\n" * 5000])
def test_blank_file_is_empty(tmp_path, content):
    path = tmp_path / "blank.txt"
    path.write_bytes(content)
    with pytest.raises(EmptyDocumentError, match='"blank.txt" is empty'):
        read_document(path)


@pytest.mark.parametrize("name", ["blank.pdf", "blank.epub", "blank.html", "blank.docx"])
def test_blank_file_is_empty_whatever_its_name(tmp_path, name):
    for content in (b"", b"\0" * 100):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(EmptyDocumentError, match=f'"{name}" is empty'):
            read_document(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "error_class", "words"),
    [
        ("notes.doc", b"\xd0\xcf\x11\xe0" + b"x" * 50, UnsupportedFormatError, "save it as .docx or PDF"),
        ("notes.docx", b"PK\x03\x04" + b"x" * 50, DamagedDocumentError, "save it anew"),
        ("notes.docx", b"{\\rtf1" + b"x" * 50, DamagedDocumentError, "it is an RTF document"),
        ("notes.pptx", b"\xd0\xcf\x11\xe0" + b"x" * 600, DamagedDocumentError, "it is an old office document"),
        ("sheet.xlsx", b"PK\x03\x04" + b"xl/workbook.xml" * 4, UnsupportedFormatError, "is a spreadsheet"),
        (
            "locked.docx",
            b"\xd0\xcf\x11\xe0" + b"x" * 600_000 + "EncryptedPackage".encode("utf-16-le"),
            UnsupportedFormatError,
            "is protected with a password",
        ),
        ("photo.jpg", b"\xff\xd8\xff\xe0" + b"x" * 50, UnsupportedFormatError, "ocrmypdf"),
        ("novel.mobi", b"x" * 100, UnsupportedFormatError, "Calibre"),
        ("README", b"just text", UnsupportedFormatError, "Supported are PDF"),
        ("book.pdf", b"<!DOCTYPE html><html>Please log in</html>", DamagedDocumentError, "it is a web page"),
        ("book.pdf", b"PK\x03\x04" + b"x" * 50, DamagedDocumentError, "a ZIP archive"),
        ("book.pdf", b"some words", DamagedDocumentError, "is not a PDF file"),
        ("book.epub", b"some words", DamagedDocumentError, "is not an EPUB file"),
        ("story.txt", b"\x89PNG\r\n\x1a\n" + b"x" * 50, DamagedDocumentError, "it is a picture"),
        ("story.txt", bytes(range(256)) * 4, DamagedDocumentError, "binary data"),
    ],
)
def test_content_that_cannot_be_read_is_named(tmp_path, name, content, error_class, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error_class) as raised:
        read_document(tmp_path / name)
    assert isinstance(raised.value, UserFacingError)
    assert words in raised.value.message and f'"{name}"' in raised.value.message
    assert raised.value.message.endswith(".")


def test_pdf_under_a_wrong_name_is_read_as_what_it_is(make_pdf):
    assert read_document(make_pdf([["Portable words."]], name="made.txt")).document_pages[0].text == "Portable words."


@pytest.mark.parametrize("name", ["größe.txt", "two  words.txt", "-rf.txt", "'quoted\".txt", "line\nbreak.txt"])
def test_odd_file_names_work(tmp_path, name):
    (tmp_path / name).write_text("Some words.", encoding="utf-8")
    assert read_document(tmp_path / name).name == name


def test_secrets_reach_the_process_neither_as_arguments_nor_as_environment(make_pdf, monkeypatch):
    from app.library import reader

    started = {}

    class WatchedPopen(subprocess.Popen):
        def __init__(self, arguments, **options):
            started.update(arguments=arguments, **options)
            super().__init__(arguments, **options)

    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setattr(reader.subprocess, "Popen", WatchedPopen)
    read_document(make_pdf([["Words."]], password="open sesame"), password="open sesame")
    assert "open sesame" not in " ".join(started["arguments"]) + "".join(started["env"].values())
    assert "HF_TOKEN" not in started["env"]


@pytest.mark.parametrize("format_name", ["pdf", "plain_text"])
def test_reader_process_loads_only_what_its_format_needs(make_pdf, tmp_path, format_name):
    if format_name == "pdf":
        path = make_pdf([["Words."]])
    else:
        path = tmp_path / "words.txt"
        path.write_text("Words.")
    script = (
        "import json, sys\nfrom app.library import reader_process\nreader_process.main()\n"
        "sys.__stdout__.write(json.dumps(sorted(sys.modules)))"
    )
    request = {"path": str(path), "format": format_name, "password": None, "limits": asdict(ReadLimits())}
    ended = subprocess.run(
        [sys.executable, "-c", script, str(os.getpid())],
        input=json.dumps(request).encode() + b"\n",
        stdout=subprocess.PIPE,
        cwd=PROJECT_FOLDER,
        check=True,
        timeout=120,
    )
    page, done, modules = (json.loads(line) for line in ended.stdout.splitlines())
    assert page["text"] == "Words." and done == {"kind": "done"}
    loaded = {name.partition(".")[0] for name in modules}
    assert not loaded & {"torch", "transformers", "llama_index", "gradio", "numpy", "pickle"}
    # A machine without the document libraries still reads text files.
    assert ("pypdf" in loaded) == (format_name == "pdf") and "bs4" not in loaded
