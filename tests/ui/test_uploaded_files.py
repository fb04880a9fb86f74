"""Uploads over real HTTP to the real page: what it may name is read, and nothing else on this machine."""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from app.chat.assistant import Assistant
from app.settings import AppSettings

httpx = pytest.importorskip("httpx")
uvicorn = pytest.importorskip("uvicorn")

TEXT = "The password of the safe is sesame."


class Browser:
    """Speaks to the page as its script does."""

    def __init__(self, address: str, assistant: Assistant) -> None:
        self.client = httpx.Client(base_url=address, timeout=10, trust_env=False)
        self.assistant = assistant
        self.conversation = assistant.new_conversation()
        functions = self.client.get("/config").json()["dependencies"]
        self._function = {function["api_name"]: function["id"] for function in functions}

    def upload(self, *files: tuple[str, str]) -> list[str]:
        response = self.client.post("/gradio_api/upload", files=[("files", file) for file in files])
        assert response.status_code == 200, response.text
        return response.json()

    def call(self, function: str, *data) -> dict:
        """The message that ends a call of a handler."""
        session = uuid.uuid4().hex
        call = {"data": list(data), "fn_index": self._function[function], "session_hash": session}
        self.client.post("/gradio_api/queue/join", json=call).raise_for_status()
        with self.client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as response:
            for line in response.iter_lines():
                if line.startswith("data: "):
                    message = json.loads(line.removeprefix("data: "))
                    if message["msg"] == "process_completed":
                        return message
        raise AssertionError("the call has no end")

    def add(self, *paths: str | Path, meta: bool = True) -> dict:
        files = [{"path": str(path)} | ({"meta": {"_type": "gradio.FileData"}} if meta else {}) for path in paths]
        return self.call("_add_files", self.conversation.conversation_id, files)

    def names(self) -> list[str]:
        return [entry.name for entry in self.assistant.entries(self.conversation)]


@pytest.fixture(scope="module")
def server(tmp_path_factory, serve_page) -> Iterator[tuple[str, Assistant, Path]]:
    """Address, assistant and the folder that uploads go to."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GRADIO_TEMP_DIR", "")
        environment.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        # Its model is never loaded: reading documents needs none.
        settings = AppSettings(data_dir=tmp_path_factory.mktemp("data"))
        assistant = Assistant(settings)
        with serve_page(settings, assistant) as address:
            yield address, assistant, Path(os.environ["GRADIO_TEMP_DIR"])
        assistant.close()


@pytest.fixture
def browser(server) -> Iterator[Browser]:
    address, assistant, _ = server
    browser = Browser(address, assistant)
    yield browser
    browser.client.close()


@pytest.fixture
def uploads(server) -> Path:
    return server[2]


@pytest.fixture
def foreign_path(request, tmp_path: Path, uploads: Path) -> Iterator[str]:
    """A path that is no upload, of the kind that the test asks for."""
    secret = tmp_path / "secret.txt"
    secret.write_text(TEXT)
    link, link_to_folder, fifo = uploads / "link.txt", uploads / "folder", uploads / "pipe.txt"
    link.symlink_to(secret)
    link_to_folder.symlink_to(tmp_path)
    os.mkfifo(fifo)
    os.mkfifo(tmp_path / "pipe.txt")
    yield {
        "file": str(secret),
        "upwards": f"{uploads}/../../../{secret.relative_to('/')}",
        "link": str(link),
        "linked folder": str(link_to_folder / secret.name),
        "pipe": str(tmp_path / "pipe.txt"),
        "pipe among the uploads": str(fifo),
        "device": "/dev/zero",
        "folder": str(uploads),
        "nothing": str(uploads / "gone.txt"),
        "address": "http://127.0.0.1:1/secret.txt",
        "zero byte": f"{uploads}/a\0b.txt",
    }[request.param]
    for path in (link, link_to_folder, fifo):
        path.unlink()


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if not path.is_dir() and path.suffix != ".lock"]


def test_uploads_are_read_and_not_kept(browser, uploads):
    paths = browser.upload(("one.txt", TEXT), ("two.txt", TEXT * 2))
    assert all(Path(path).is_relative_to(uploads) for path in paths)
    assert browser.add(*paths)["success"]
    assert browser.names() == ["one.txt", "two.txt"]
    assert list(uploads.iterdir()) == []


@pytest.mark.parametrize("meta", [True, False])
@pytest.mark.parametrize(
    "foreign_path",
    [
        "file",
        "upwards",
        "link",
        "linked folder",
        "pipe",
        "pipe among the uploads",
        "device",
        "folder",
        "nothing",
        "address",
        "zero byte",
    ],
    indirect=True,
)
def test_nothing_but_uploads_is_read(browser, uploads, foreign_path, meta):
    before = set(files_below(uploads))
    ended = browser.add(foreign_path, meta=meta)
    assert not ended["success"]
    assert "Drop the file into the page" in ended["output"]["error"]
    assert browser.names() == []
    assert set(files_below(uploads)) == before
    assert browser.client.get("/healthz").status_code == 200


@pytest.mark.parametrize("foreign_path", ["file", "pipe", "pipe among the uploads", "device", "address"], indirect=True)
def test_no_input_of_any_handler_takes_a_path(browser, uploads, foreign_path):
    before = set(files_below(uploads))
    payload = {"path": foreign_path, "meta": {"_type": "gradio.FileData"}}
    for arguments in (("_ask", payload, {"text": "Who?", "files": [payload]}), ("open", [payload])):
        function, *data = arguments
        inputs = data + [None] * (8 - len(data) if function == "_ask" else 0)
        ended = browser.call(function, *inputs)
        assert not ended["success"]
        assert "Drop the file into the page" in ended["output"]["error"]
    assert set(files_below(uploads)) == before


def test_the_same_file_in_two_tabs_is_two_uploads_of_one_document(server, browser, uploads):
    other = Browser(server[0], server[1])
    text = f"{TEXT} In two tabs."
    first, second = browser.upload(("same.txt", text)), other.upload(("same.txt", text))
    assert first != second
    assert browser.add(*first)["success"]
    assert other.add(*second)["success"]
    assert browser.names() == other.names() == ["same.txt"]
    other.client.close()
    assert list(uploads.iterdir()) == []


def test_a_file_that_is_gone_is_told_of(browser):
    (path,) = browser.upload(("one.txt", TEXT))
    assert browser.add(path)["success"]
    ended = browser.add(path)
    assert "no longer on the server" in ended["output"]["error"]


def test_a_format_that_is_not_read_is_refused_and_not_kept(browser, uploads):
    ended = browser.add(*browser.upload(("movie.avi", TEXT)))
    assert not ended["success"]
    assert "movie.avi" in ended["output"]["error"]
    assert list(uploads.iterdir()) == []


def test_of_an_upload_broken_off_nothing_stays(server, uploads):
    host, port = server[0].removeprefix("http://").split(":")
    head = (
        "POST /gradio_api/upload?upload_id=x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="files"; filename="half.txt"\r\n\r\nhalf'
    )
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode())
        wait_until(lambda: files_below(uploads))
    wait_until(lambda: not list(uploads.iterdir()))


def wait_until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_uploads_are_not_handed_out_again(browser, tmp_path):
    (path,) = browser.upload(("one.txt", TEXT))
    for address in (f"/gradio_api/file={path}", f"/gradio_api/file/{path}", f"/file={path}"):
        assert browser.client.get(address).status_code in (403, 404)
    with suppress(OSError):
        Path(path).unlink()
