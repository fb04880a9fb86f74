"""No handler of the real page opens what a request names, over real HTTP."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.settings import AppSettings

httpx = pytest.importorskip("httpx")
uvicorn = pytest.importorskip("uvicorn")


class Browser:
    """Speaks to the page as its script does."""

    def __init__(self, address: str) -> None:
        self.client = httpx.Client(base_url=address, timeout=10, trust_env=False)
        self._functions = self.client.get("/config").json()["dependencies"]

    @property
    def functions(self) -> dict[str, tuple[int, int]]:
        """Number and count of inputs of each handler."""
        return {one["api_name"]: (one["id"], len(one["inputs"])) for one in self._functions if one["backend_fn"]}

    def call(self, number: int, data: list) -> dict:
        """The message that ends a call of a handler."""
        session = uuid.uuid4().hex
        call = {"data": data, "fn_index": number, "session_hash": session}
        self.client.post("/gradio_api/queue/join", json=call).raise_for_status()
        with self.client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as response:
            for line in response.iter_lines():
                if line.startswith("data: "):
                    message = json.loads(line.removeprefix("data: "))
                    if message["msg"] == "process_completed":
                        return message
        raise AssertionError("the call has no end")


@pytest.fixture(scope="module")
def browser(tmp_path_factory, serve_page) -> Iterator[Browser]:
    from tests.ui.scripted_assistant import ScriptedAssistant

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GRADIO_TEMP_DIR", "")
        environment.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        settings = AppSettings(data_dir=tmp_path_factory.mktemp("data"))
        with serve_page(settings, ScriptedAssistant()) as address:
            browser = Browser(address)
            yield browser
            browser.client.close()


def test_no_input_of_any_handler_takes_a_path(browser, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    paths = itertools.cycle((str(tmp_path / "secret.txt"), "/dev/zero", "http://127.0.0.1:1/secret.txt", "a\0b", "", 7))
    assert browser.functions
    for number, inputs in browser.functions.values():
        if inputs == 0:
            continue
        for wrap in (lambda named: named, lambda named: [named], lambda named: {"text": "Who?", "files": [named]}):
            named = {"path": next(paths), "meta": {"_type": "gradio.FileData"}}
            ended = browser.call(number, [wrap(named), *[None] * (inputs - 1)])
            assert not ended["success"]
            assert "Drop the file into the page" in ended["output"]["error"]


def test_gradio_takes_and_hands_out_no_files(browser, tmp_path):
    files = [("files", ("one.txt", "text"))]
    assert browser.client.post("/gradio_api/upload", files=files).status_code == 404
    path: Path = tmp_path / "one.txt"
    path.write_text("secret")
    for address in (f"/gradio_api/file={path}", f"/gradio_api/file/{path}", f"/file={path}"):
        assert browser.client.get(address).status_code in (403, 404)
