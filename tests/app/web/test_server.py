"""The web server over real HTTP: who may call it, what its answers forbid the browser, telemetry, health."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pytest

from app.chat.answers.telemetry import TelemetryHub
from app.errors import UserFacingError
from app.models.model_loader import ModelStatus
from app.settings import AppSettings, page_address
from app.web.server import Page, create_app

httpx = pytest.importorskip("httpx")
gradio = pytest.importorskip("gradio")
pytest.importorskip("uvicorn")

CONVERSATION = "c0ffee"


class ScriptedAssistant:
    """One open conversation and a model that is still loading."""

    def __init__(self) -> None:
        self.telemetry = TelemetryHub()
        self.telemetry.open(CONVERSATION)

    def status(self) -> ModelStatus:
        return ModelStatus("loading", "Reading the weights", "embedded")

    def conversation(self, conversation_id: str) -> SimpleNamespace:
        if conversation_id != CONVERSATION:
            raise UserFacingError("This conversation is closed.")
        return SimpleNamespace(conversation_id=conversation_id, title="Who's “he”?/../ ünd\r\nX-Evil: 1")

    def library_json(self, conversation_id: str = "", search: str = "") -> dict:
        if conversation_id:
            self.conversation(conversation_id)
        return {"documents": [{"name": search}], "conversations": []}

    def export_conversation(self, conversation_id: str, kind: str) -> str:
        self.conversation(conversation_id)
        return f"{kind} of {conversation_id}"

    def page_text(self, conversation_id: str, page: int) -> dict:
        self.conversation(conversation_id)
        return {"page": page, "text": "High above the city"}


def small_page(assistant: ScriptedAssistant, settings: AppSettings) -> Page:
    with gradio.Blocks(analytics_enabled=False) as blocks:
        question = gradio.Textbox(label="Question")
        question.submit(lambda text: text.upper(), question, question, api_name="shout")
    return Page(blocks, gradio.themes.Base(font=["sans-serif"], font_mono=["monospace"]), "")


@pytest.fixture(scope="module")
def assistant() -> ScriptedAssistant:
    return ScriptedAssistant()


@pytest.fixture(scope="module")
def address(assistant, serve_app, tmp_path_factory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as environment:
        # The server sets these for Gradio; the context puts them back.
        environment.setenv("GRADIO_TEMP_DIR", "")
        environment.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        settings = AppSettings(data_dir=tmp_path_factory.mktemp("data"))
        with serve_app(create_app(settings, assistant, small_page)) as address:
            yield address


@pytest.fixture
def client(address) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=20, trust_env=False) as client:
        yield client


def step_event(step: int) -> dict:
    return {"type": "step", "step": step, "page_reads": np.full((2, 3), step, dtype=np.uint8)}


def next_event(lines: Iterator[str]) -> dict:
    """The next event of a stream, past a few blank lines and keep-alive comments."""
    data = next((line for line in itertools.islice(lines, 8) if line.startswith("data: ")), None)
    assert data is not None, "the stream stays silent"
    return json.loads(data.removeprefix("data: "))


def test_a_foreign_host_name_is_refused(client):
    for host in ("evil.example", "evil.example:7860", "127.0.0.1.evil.example", ""):
        assert client.get("/", headers={"Host": host}).status_code == 400
        assert client.get("/healthz", headers={"Host": host}).status_code == 400


def test_localhost_is_this_server_too(client):
    assert client.get("/healthz", headers={"Host": "localhost:7860"}).status_code == 200


def test_a_foreign_origin_is_refused(client, address):
    call = {"data": ["hello"]}
    for origin in ("http://evil.example", "null", address.replace("http://127.0.0.1", "http://localhost")):
        response = client.post("/gradio_api/call/shout", json=call, headers={"Origin": origin})
        assert response.status_code == 403
    assert client.post("/gradio_api/call/shout", json=call, headers={"Origin": address}).status_code == 200


def test_every_answer_tells_the_browser_to_load_nothing_from_elsewhere(client):
    responses = [client.get(path) for path in ("/", "/healthz", "/quest/css/page.css", "/no/such/page")]
    responses.append(client.get("/", headers={"Host": "evil.example"}))
    for response in responses:
        policy = dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == policy["connect-src"] == "'self'"
        assert policy["img-src"] == "'self' data: blob:"
        assert policy["frame-ancestors"] == "'none'"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "http:" not in response.headers["Content-Security-Policy"]


def test_files_beside_the_page_are_not_served(client):
    own_file = client.get(f"/gradio_api/file={__file__}")
    assert own_file.status_code in (403, 404)
    assert client.get("/quest/js/../../app/server.py").status_code == 404
    assert client.get("/quest/js/%2e%2e/%2e%2e/app/server.py").status_code == 404
    assert client.get("/gradio_api/file=http://127.0.0.1:1/").status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        "/openapi.json",
        "/docs",
        "/login",
        "/monitoring",
        "/monitoring/summary",
        "/deep_link",
        "/svelte/client.js",
        "/gradio_api/openapi.json",
        "/gradio_api/info",
        "/gradio_api/dev/reload",
        "/gradio_api/startup-events",
        "/gradio_api/queue/status",
        "/gradio_api/runs",
        "/gradio_api/stream/a/b/c/playlist.m3u8",
        "/gradio_api/vibe-code/",
        "/gradio_api/custom_component/1/client/component/index.js",
        "/gradio_api/mcp/sse",
        "//gradio_api/openapi.json",
        "/assets/../gradio_api/openapi.json",
    ],
)
def test_what_the_page_does_not_need_is_closed(client, path):
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("path", ["upload", "component_server", "process_recording", "vibe-edit", "stream/event"])
def test_what_the_page_never_posts_is_closed(client, path):
    assert client.post(f"/gradio_api/{path}", json={}).status_code == 404


def test_a_request_as_large_as_a_file_is_no_call(client):
    large = b'{"data": ["' + b"x" * (9 << 20) + b'"]}'
    assert client.post("/gradio_api/call/shout", content=large).status_code == 413
    assert client.post("/gradio_api/call/shout", content=iter([b'{"data": ', b'["x"]}'])).status_code == 413


def test_the_page_is_served_while_the_model_loads(client):
    page = client.get("/")
    assert page.status_code == 200
    assert "text/html" in page.headers["Content-Type"]
    health = client.get("/healthz").json()
    assert (health["status"], health["message"]) == ("loading", "Reading the weights")
    # Of this start of the server, for as long as it runs.
    assert len(health["instance"]) >= 16 and client.get("/healthz").json()["instance"] == health["instance"]


def test_the_lists_are_told_for_a_conversation_or_none(client):
    asked = client.get("/library", params={"conversation": CONVERSATION, "search": "light & dark"})
    assert asked.json() == {"documents": [{"name": "light & dark"}], "conversations": []}
    assert asked.headers["Cache-Control"] == "no-store"
    assert client.get("/library").status_code == 200
    assert client.get("/library", params={"conversation": "someone-elses"}).status_code == 404


@pytest.mark.parametrize(("suffix", "kind", "media"), [("md", "markdown", "text/markdown"), ("json", "json", "json")])
def test_a_conversation_is_downloaded_under_a_name_that_every_disk_takes(client, suffix, kind, media):
    response = client.get(f"/conversations/{CONVERSATION}/export.{suffix}")
    assert (response.status_code, response.text) == (200, f"{kind} of {CONVERSATION}")
    assert media in response.headers["Content-Type"] and "X-Evil" not in response.headers
    disposition = response.headers["Content-Disposition"]
    assert disposition.startswith(f"attachment; filename=\"conversation.{suffix}\"; filename*=UTF-8''")
    name = unquote(disposition.partition("filename*=UTF-8''")[2])
    assert name == f"Who s he ünd X-Evil 1.{suffix}"
    assert client.get(f"/conversations/nobodys/export.{suffix}").status_code == 404


def test_scripts_are_served_as_scripts(client):
    response = client.get("/quest/js/main.js")
    assert response.status_code == 200
    assert "javascript" in response.headers["Content-Type"]


def test_the_stream_tells_events_as_they_come_and_a_departed_browser_is_forgotten(client, assistant):
    hub = assistant.telemetry
    with client.stream("GET", f"/telemetry/{CONVERSATION}/events") as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        lines = response.iter_lines()
        assert next_event(lines)["type"] == "idle"
        hub.publish(CONVERSATION, {"type": "queued", "jobs_ahead": 2})
        assert next_event(lines) == {"type": "queued", "jobs_ahead": 2}
        hub.publish(CONVERSATION, step_event(1))
        step = next_event(lines)
        assert (step["step"], step["page_reads"]) == (1, "AQEBAQEB")
        hub.publish(CONVERSATION, {"type": "finished", "steps": 2})
        assert next_event(lines) == {"type": "finished", "steps": 2}
    deadline = time.monotonic() + 20
    while hub._channels[CONVERSATION].subscriptions and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not hub._channels[CONVERSATION].subscriptions


def test_open_streams_leave_the_server_responsive(client, address):
    with httpx.Client(base_url=address, timeout=20, trust_env=False) as watcher:
        streams = [watcher.stream("GET", f"/telemetry/{CONVERSATION}/events") for _ in range(20)]
        for stream in streams:
            stream.__enter__()
        assert client.get("/healthz").status_code == 200
        for stream in streams:
            stream.__exit__(None, None, None)


def next_line(lines: Iterator[str]) -> dict:
    """The next line of a shared connection that tells something."""
    return next(told for told in map(json.loads, lines) if told)


def wait_until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_several_streams_come_over_one_connection(client, address, assistant):
    subscriptions = assistant.telemetry._channels[CONVERSATION].subscriptions
    events = {"address": f"/telemetry/{CONVERSATION}/events"}
    with httpx.Client(base_url=address, timeout=20, trust_env=False) as browser:
        with browser.stream("GET", "/streams/c1") as response:
            lines = response.iter_lines()
            assert json.loads(next(lines)) == {}
            for number in (1, 2):
                assert client.post(f"/streams/c1/{number}", params=events).status_code == 204
                assert next_line(lines) == {"stream": number, "status": 200}
                told = next_line(lines)
                assert (told["stream"], "idle" in told["text"]) == (number, True)
            wait_until(lambda: len(subscriptions) == 2)
            assert client.delete("/streams/c1/1").status_code == 204
            assert next_line(lines) == {"stream": 1, "end": True}
            wait_until(lambda: len(subscriptions) == 1)
            assert client.post("/streams/c1/3", params={"address": "/telemetry/unknown/events"}).status_code == 204
            assert next_line(lines) == {"stream": 3, "status": 404}
            assert "closed" in next_line(lines)["text"]
            assert next_line(lines) == {"stream": 3, "end": True}
    # What a browser leaves open goes with its connection.
    wait_until(lambda: not subscriptions)


@pytest.mark.parametrize("address_", ["/", "/healthz", "/telemetry/x/steps/1", "http://127.0.0.1/telemetry/x/events/y"])
def test_nothing_but_streams_is_shared(client, address, address_):
    with httpx.Client(base_url=address, timeout=20, trust_env=False) as browser:
        with browser.stream("GET", "/streams/c2") as response:
            next(response.iter_lines())
            assert client.post("/streams/c2/1", params={"address": address_}).status_code == 404
    assert client.post("/streams/nobody/1", params={"address": "/telemetry/x/events"}).status_code == 404
    assert client.delete("/streams/nobody/1").status_code == 204


def test_kept_steps_can_be_gone_back_to(client, assistant):
    assistant.telemetry.publish(CONVERSATION, step_event(0))
    assistant.telemetry.publish(CONVERSATION, step_event(7))
    kept = client.get(f"/telemetry/{CONVERSATION}/steps/7")
    assert (kept.status_code, kept.json()["page_reads"]) == (200, "BwcHBwcH")
    missing = client.get(f"/telemetry/{CONVERSATION}/steps/8")
    assert missing.status_code == 404
    assert "8" in missing.json()["error"]


def test_the_text_of_a_kv_page(client):
    response = client.get(f"/telemetry/{CONVERSATION}/pages/3")
    assert response.json() == {"page": 3, "text": "High above the city"}


@pytest.mark.parametrize("route", ["events", "steps/0", "pages/0"])
def test_telemetry_of_an_unknown_conversation_is_not_found(client, route):
    response = client.get(f"/telemetry/someone-elses/{route}")
    assert response.status_code == 404
    assert response.json() == {"error": "This conversation is closed."}


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:7860"),
        ("0.0.0.0", "http://127.0.0.1:7860"),
        ("::", "http://[::1]:7860"),
        ("fe80::2", "http://[fe80::2]:7860"),
        ("books.local", "http://books.local:7860"),
    ],
)
def test_the_address_to_open(host, address):
    assert page_address(host, 7860) == address
