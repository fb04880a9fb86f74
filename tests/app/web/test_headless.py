"""A server without the page: what it serves, and that nothing of the page is imported for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from starlette.testclient import TestClient

from app.settings import AppSettings
from app.web.server import create_app
from tests.app.web.test_server import CONVERSATION, ScriptedAssistant

_START = """
import sys
from ui import __main__ as program
import app.chat.assistant, app.web.server

class Assistant:
    notice = ""
    def __init__(self, *arguments, **options): pass
    def close(self): pass

def serve(settings, assistant, build_page):
    assert build_page is None
    app.web.server.create_app(settings, assistant, build_page)

app.chat.assistant.Assistant, app.web.server.serve = Assistant, serve
assert program.main(["--headless", "--port", "17861", "--data-dir", sys.argv[1]]) == 0
print(*(name for name in sys.modules if name.partition(".")[0] in ("gradio", "ui", "torch")))
"""


@pytest.fixture
def client(tmp_path):
    app = create_app(AppSettings(data_dir=tmp_path, headless=True), ScriptedAssistant(), build_page=None)
    return TestClient(app, base_url="http://127.0.0.1:7860", raise_server_exceptions=False)


def test_library_and_health_are_served(client):
    assert client.get("/healthz").json()["status"] == "loading"
    assert client.get("/library", params={"conversation": CONVERSATION}).status_code == 200
    assert client.get("/library", params={"conversation": "closed"}).json() == {"error": "This conversation is closed."}


@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/queue/join", "/quest/js/main.js", "/models"])
def test_nothing_of_the_page_is(client, path):
    assert client.get(path).status_code == 404


def test_a_headless_server_that_listens_asks_for_the_key(tmp_path):
    app = create_app(AppSettings(data_dir=tmp_path, host="::", headless=True), ScriptedAssistant(), build_page=None)
    client = TestClient(app, base_url="http://127.0.0.1:7860")
    assert client.get("/healthz").status_code == 401
    key = {"Authorization": f"Bearer {app.state.access.made}"}
    assert client.get("/healthz", headers=key).status_code == 200


def test_neither_gradio_nor_the_page_is_imported(tmp_path):
    result = subprocess.run([sys.executable, "-c", _START, str(tmp_path)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["ui", "ui.__main__"]


def test_without_the_api_nothing_below_v1_is_served(tmp_path):
    assistant = ScriptedAssistant()
    assistant.start_loading = lambda: None
    for no_api, expected in ((False, 503), (True, 404)):
        app = create_app(AppSettings(data_dir=tmp_path, headless=True, no_api=no_api), assistant, None)
        client = TestClient(app, base_url="http://127.0.0.1:7860", raise_server_exceptions=False)
        assert client.get("/v1/models").status_code == expected
        assert client.post("/v1/chat/completions", json={}).status_code in (400, 404)
        assert client.get("/library").status_code == 200
