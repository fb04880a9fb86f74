"""Documents over real HTTP: what is added, what is refused in which words, and what is left of it on the disk."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.chat.assistant import Assistant
from app.settings import AppSettings

httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn")
# Comes with gradio, which a machine that only measures kernels need not have.
document_upload = pytest.importorskip("app.web.document_upload")

TEXT = b"The password of the safe is sesame."


@pytest.fixture(scope="module")
def assistant(tmp_path_factory) -> Iterator[Assistant]:
    """Its model is never loaded: adding documents needs none."""
    assistant = Assistant(AppSettings(data_dir=tmp_path_factory.mktemp("data")))
    yield assistant
    assistant.close()


@pytest.fixture(scope="module")
def address(assistant, serve_app) -> Iterator[str]:
    """Where the route is served, behind the guard and without the page."""
    from fastapi import FastAPI

    from app.web.request_guard import RequestGuard
    from app.web.uploads import UploadFolder

    uploads = UploadFolder.open(assistant.settings.data_dir / "uploads")
    app = FastAPI()
    app.add_middleware(RequestGuard, allowed_hosts={"127.0.0.1"})
    document_upload.add_document_upload(app, uploads, assistant)
    with serve_app(app) as address:
        yield address
    uploads.close()


@pytest.fixture
def add(address, assistant) -> Callable:
    """Adds a file to a conversation of its own, or to `conversation`."""

    def added(name: str, content: bytes = TEXT, conversation=None, **options):
        conversation = conversation or assistant.new_conversation()
        query = {"conversation": conversation.conversation_id, "name": name}
        return httpx.post(f"{address}/library/documents", params=query, content=content, trust_env=False, **options)

    return added


@pytest.fixture
def uploads(assistant) -> Callable[[], list[Path]]:
    """What lies among the uploads."""
    folder = assistant.settings.data_dir / "uploads"
    return lambda: [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_without_a_conversation_a_document_is_added_to_the_library_alone(address, assistant, uploads):
    before = assistant.conversation_summaries()
    content = b"A text that no conversation has."
    route = f"{address}/library/documents"
    told = httpx.post(route, params={"name": "alone.txt"}, content=content, trust_env=False).json()
    assert (told["name"], told["note"]) == ("alone.txt", "")
    assert assistant.library.entry(told["document_id"]).name == "alone.txt"
    assert assistant.conversation_summaries() == before
    assert uploads() == []
    again = httpx.post(route, params={"name": "two.txt"}, content=content, trust_env=False).json()
    assert again["document_id"] == told["document_id"] and "is in the library already" in again["note"]


def test_a_document_is_added_to_the_conversation_and_its_upload_goes(add, assistant, uploads):
    conversation = assistant.new_conversation()
    answer = add("one.txt", conversation=conversation)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["name"], told["note"]) == ("one.txt", "")
    assert conversation.document_ids == [told["document_id"]]
    assert assistant.library.wait(told["document_id"]).state == "read"
    assert uploads() == []
    # The same again, and under another name.
    assert add("one.txt", conversation=conversation).json()["note"] == '"one.txt" is in this chat already.'
    again = add("two.txt").json()
    assert again["note"] == '"two.txt" has the same content as "one.txt", which is in the library already.'


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../evil.txt", "evil.txt"),
        ("C:\\Users\\me\\book.txt", "book.txt"),
        ("", "document"),
        ("a\0b\n.txt", "a b.txt"),
        ("x" * 500 + ".txt", "x" * 195 + "….txt"),
        ("<b>.txt", "<b>.txt"),
        ("\udcff.txt".encode("utf-8", "surrogatepass").decode("latin-1"), None),
    ],
)
def test_a_name_is_no_path(add, assistant, uploads, name, shown):
    answer = add(name, TEXT + name.encode("utf-8", "replace"))
    if shown == "document":
        # Without an ending nobody knows what it is.
        assert '"document" is in a format' in answer.json()["error"]
    else:
        assert shown is None or answer.json()["name"] == shown
    documents = assistant.settings.data_dir / "documents"
    assert all(path.parent == documents for path in documents.rglob("*"))
    assert uploads() == []


def test_what_cannot_be_read_is_refused_with_what_can(add, uploads):
    for name, content, words, names_formats in (
        ("movie.avi", TEXT, '"movie.avi" is in a format that cannot be read. Convert it', True),
        ("scan.png", b"\x89PNG" + TEXT, "turn it into a PDF with text recognition", True),
        ("empty.pdf", b"", '"empty.pdf" is empty.', False),
        ("book.pdf", b"<!doctype html><p>Not found", "is not a PDF file: it is a web page", False),
    ):
        answer = add(name, content)
        told = answer.json()
        assert words in told["error"] and "Supported are" not in told["error"]
        assert ("PDF (.pdf)" in told["supported"]) == names_formats
    assert uploads() == []


@pytest.mark.parametrize("is_announced", [True, False])
def test_a_file_that_is_too_large_is_refused_as_soon_as_that_is_known(add, uploads, monkeypatch, is_announced):
    monkeypatch.setattr(document_upload, "MOST_BYTES", 3 << 20)
    content = b"x" * (4 << 20)
    answer = add("long.txt", content if is_announced else (content[i : i + 65536] for i in range(0, 4 << 20, 65536)))
    assert answer.json()["error"] == '"long.txt" is larger than 3 MiB. Split it into parts.'
    assert uploads() == []


def test_a_full_disk_is_told_as_such(add, uploads, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device", "x")

    monkeypatch.setattr(document_upload, "_add", full)
    answer = add("one.txt")
    assert "Free some space" in answer.json()["error"]
    assert uploads() == []


def test_a_conversation_that_is_gone_is_told_and_foreign_pages_add_nothing(address, assistant):
    count = len(assistant.library.entries())
    options = {"content": TEXT + b"foreign", "trust_env": False}
    for query, headers, status in (
        ({"conversation": "gone", "name": "a.txt"}, {}, 200),
        ({"conversation": "", "name": "a.txt"}, {}, 200),
        ({"conversation": "", "name": "a.txt"}, {"Origin": "http://evil.example"}, 403),
        ({"conversation": "", "name": "a.txt"}, {"Host": "evil.example"}, 400),
    ):
        answer = httpx.post(f"{address}/library/documents", params=query, headers=headers, **options)
        assert answer.status_code == status and "document_id" not in answer.text
    assert len(assistant.library.entries()) == count


def test_of_an_upload_broken_off_nothing_stays(address, assistant, uploads):
    host, port = address.removeprefix("http://").split(":")
    conversation_id = assistant.new_conversation().conversation_id
    head = (
        f"POST /library/documents?conversation={conversation_id}&name=half.txt HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        "Content-Length: 1000000\r\n\r\nhalf"
    )
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode())
        wait_until(uploads)
    wait_until(lambda: not uploads())
    assert os.listdir(assistant.settings.data_dir / "uploads")  # the server's own folder


def wait_until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
