"""`ask --url` against a small server that answers as the app does, and against what is none."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("httpx2")

from app import cli
from app.errors import UserFacingError
from app.running_app import RunningApp

KEY = "a-key-of-my-own-choice"
CITATION = {
    "number": 1, "sentence": "Ada kept it.", "document": "Harbour", "document_id": "d0c", "page_label": "7",
    "text": "the light, which Ada kept", "read_score": 2.0,
}  # fmt: skip


def chunk(**fields) -> dict:
    return {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "tiny", "choices": []} | fields


def delta(**what) -> dict:
    return chunk(choices=[{"index": 0, "delta": what, "finish_reason": None}])


LAST = chunk(
    choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}], citations=[CITATION], quest={"attended_tokens": 64}
)
USAGE = chunk(usage={"prompt_tokens": 90, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 80}})


class FakeApp:
    """What the server answers, and what it was asked."""

    def __init__(self) -> None:
        self.key = ""
        self.health: object = {"status": "ready", "message": "Ready", "model": "tiny", "instance": "a1"}
        self.loading: list[dict] = []
        self.states = ["reading", "read"]
        self.upload: dict = {"document_id": "d0c", "name": "Harbour", "note": ""}
        self.lines = [delta(reasoning_content="Hm."), delta(content="Ada "), delta(content="kept it."), LAST, USAGE]
        self.ends = True
        self.refusals: list[tuple[int, dict, dict]] = []
        self.has_api = True
        self.requests: list[dict] = []
        self.uploaded: list[tuple[str, bytes]] = []


@pytest.fixture
def fake() -> Iterator[FakeApp]:
    fake = FakeApp()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_GET(self):
            if self._is_refused():
                return
            if self.path == "/healthz":
                self._answer(200, fake.loading.pop() if fake.loading else fake.health)
            elif self.path == "/library":
                state = fake.states.pop(0) if len(fake.states) > 1 else fake.states[0]
                entry = {"document_id": "d0c", "name": "Harbour", "state": state, "progress": 0.5, "page_count": 9}
                self._answer(200, {"documents": [entry | {"message": "It is encrypted."}] if state else []})
            elif self.path == "/v1/models" and fake.has_api:
                self._answer(200, {"object": "list", "data": [{"id": "tiny"}]})
            else:
                self._answer(404, {"detail": "Not Found"})

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self._is_refused():
                return
            if self.path.startswith("/library/documents"):
                fake.uploaded.append((self.path, body))
                self._answer(200, fake.upload)
                return
            fake.requests.append(json.loads(body))
            if fake.refusals:
                self._answer(*fake.refusals.pop(0))
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for line in fake.lines:
                self.wfile.write(f": alive\n\ndata: {json.dumps(line)}\n\n".encode())
            if fake.ends:
                self.wfile.write(b"data: [DONE]\n\n")

        def _is_refused(self) -> bool:
            if fake.key and self.headers.get("Authorization") != f"Bearer {fake.key}":
                self._answer(401, {"error": {"message": "no"}})
                return True
            return False

        def _answer(self, status, content, headers=None):
            body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            self.send_response(status)
            kind = "text/plain" if isinstance(content, str) else "application/json"
            for name, value in ({"Content-Type": kind, "Content-Length": str(len(body))} | (headers or {})).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    yield fake
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "harbour & sea.txt"
    path.write_text("Ada kept the light.")
    return path


def ask(fake, *arguments) -> int:
    return cli.main(["ask", "--url", fake.url, *map(str, arguments)])


def test_the_answer_goes_to_stdout_and_the_rest_to_stderr(fake, book, capsys):
    assert ask(fake, book, "Who kept the light?") == 0
    shown = capsys.readouterr()
    assert shown.out == "Ada kept it.\n"
    assert "Read Harbour: 9 pages" in shown.err
    assert '① p. 7: "the light, which Ada kept" (text supports it; read 2.0x as much as usual)' in shown.err
    assert "3 tokens; " in shown.err and "prompt of 90 tokens, 80 of them reused" in shown.err
    assert fake.uploaded == [("/library/documents?name=harbour+%26+sea.txt", b"Ada kept the light.")]
    (request,) = fake.requests
    assert request["documents"] == ["d0c"] and request["model"] == "tiny" and request["stream"] is True
    assert request["messages"] == [{"role": "user", "content": "Who kept the light?"}]
    assert "quest" not in request and "seed" not in request


def test_what_was_said_is_sent(fake, capsys):
    flags = ("--token-budget", "256", "--attention", "dense", "--seed", "3", "--max-new-tokens", "9")
    ask(fake, "Who?", *flags, "--system-prompt", "Be short.", "--temperature", "0.5")
    (request,) = fake.requests
    assert request["quest"] == {"attention": "dense", "token_budget": 256}
    assert (request["seed"], request["max_tokens"], request["temperature"]) == (3, 9, 0.5)
    assert request["messages"][0] == {"role": "system", "content": "Be short."}
    assert "documents" not in request


def test_json_tells_what_the_reply_has(fake, book, capsys):
    assert ask(fake, book, "Who?", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["answer"], answer["thinking"], answer["finish_reason"]) == ("Ada kept it.", "Hm.", "stop")
    assert answer["citations"] == [CITATION] and answer["quest"] == {"attended_tokens": 64}
    assert answer["usage"]["prompt_tokens"] == 90 and answer["model"] == "tiny"


def test_why_an_engine_behind_the_app_has_cut_an_answer_is_told(fake, capsys):
    fake.lines[3] = LAST | {"quest": {"engine_reason": "insufficient_system_resource", "warning": "Not saved."}}
    ask(fake, "Who?")
    shown = capsys.readouterr().err
    assert "Cut by the engine behind the app: it has too little memory or too much to do." in shown
    assert "Not saved." in shown
    fake.lines[:3] = []
    ask(fake, "Who?")
    assert "before its first word" not in capsys.readouterr().err


def test_questions_of_a_file_are_one_conversation(fake, tmp_path, capsys):
    questions = tmp_path / "questions.txt"
    questions.write_text("Who?\nWhy?\n")
    ask(fake, "--questions", questions)
    assert capsys.readouterr().out == "> Who?\nAda kept it.\n> Why?\nAda kept it.\n"
    roles = [(message["role"], message["content"]) for message in fake.requests[1]["messages"]]
    assert roles == [("user", "Who?"), ("assistant", "Ada kept it."), ("user", "Why?")]


def test_the_key_is_taken_from_the_flag_or_the_environment(fake, monkeypatch, capsys):
    fake.key = KEY
    with pytest.raises(UserFacingError, match="asks for its key: set QUEST_CHAT_API_KEY"):
        ask(fake, "Who?")
    with pytest.raises(UserFacingError, match="does not take this key"):
        ask(fake, "Who?", "--api-key", "another-key-of-mine")
    assert ask(fake, "Who?", "--api-key", KEY) == 0
    monkeypatch.setenv("QUEST_CHAT_API_KEY", KEY)
    assert ask(fake, "Who?") == 0
    monkeypatch.setenv("QUEST_CHAT_API_KEY", "a\nb")
    with pytest.raises(UserFacingError, match="Copy it again"):
        ask(fake, "Who?")


def test_where_nothing_answers_that_is_said(fake):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        fake.url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(UserFacingError, match="Nothing answers at"):
            ask(fake, "Who?")


def test_a_model_that_is_loading_is_waited_for(fake, capsys):
    loading = fake.health | {"message": "Reading the weights"}
    fake.loading = [loading | {"status": stage} for stage in ("loading", "starting")]
    assert ask(fake, "Who?") == 0
    assert "The model is loading: Reading the weights" in capsys.readouterr().err


@pytest.mark.parametrize("health", ["hello", {"status": "ok"}, [], {"detail": "Not Found"}])
def test_another_program_is_told_from_the_app(fake, health):
    fake.health = health
    with pytest.raises(UserFacingError, match="is not Quest Chat"):
        ask(fake, "Who?")


def test_an_app_without_api_or_model_is_told(fake):
    fake.has_api = False
    with pytest.raises(UserFacingError, match="serves no API"):
        ask(fake, "Who?")
    fake.health = {"status": "failed", "message": "The disk is full.", "instance": "a"}
    with pytest.raises(UserFacingError, match="has no model: The disk is full."):
        ask(fake, "Who?")


@pytest.mark.parametrize(
    "url", ["", "ftp://x", "http://", "http://a:b@c", "http://x:99999", "http://x/?key=1", "http://[x"]
)
def test_what_is_no_address_is_refused(fake, url):
    fake.url = url
    with pytest.raises(UserFacingError, match="--url must be an address"):
        ask(fake, "Who?")


@pytest.mark.parametrize("url", ["localhost:7860", "http://localhost:7860/", "http://localhost:7860/v1/"])
def test_addresses_are_taken_as_people_write_them(url):
    app = RunningApp(url)
    assert app.address == "http://localhost:7860"
    app.close()


def test_a_full_queue_is_waited_for(fake, capsys):
    busy = {"error": {"message": "The queue is full."}}
    fake.refusals = [(503, busy, {"Retry-After": "0"}), (503, busy, {"Retry-After": "soon"})]
    assert ask(fake, "Who?") == 0
    assert len(fake.requests) == 3


@pytest.mark.parametrize(
    ("status", "content", "words"),
    [
        (400, {"error": {"message": "The document d0c is unknown.", "type": "x"}}, "The document d0c is unknown."),
        (500, "Internal Server Error", "status 500"),
        (400, "This server is not known by that name.", "not known by that name"),
        (302, "", "status 302"),
    ],
)
def test_what_is_refused_is_told(fake, status, content, words):
    fake.refusals = [(status, content, {})]
    with pytest.raises(UserFacingError, match=words):
        ask(fake, "Who?")


def test_an_answer_that_breaks_off_or_fails_is_told(fake, capsys):
    fake.ends = False
    with pytest.raises(UserFacingError, match="broke off"):
        ask(fake, "Who?")
    fake.lines = [delta(content="Ada"), {"error": {"message": "The GPU is out of memory.", "code": None}}]
    with pytest.raises(UserFacingError, match="out of memory"):
        ask(fake, "Who?")
    fake.lines = ["no chunk"]
    with pytest.raises(UserFacingError, match="is not Quest Chat"):
        ask(fake, "Who?")


@pytest.mark.parametrize(
    ("state", "words"), [("locked", "password is given in the page"), ("failed", "encrypted"), ("", "removed")]
)
def test_a_document_that_cannot_be_read_is_told(fake, book, state, words):
    fake.states = [state]
    with pytest.raises(UserFacingError, match=words):
        ask(fake, book, "Who?")


def test_a_document_that_is_refused_or_missing_is_told(fake, book, tmp_path):
    fake.upload = {"error": "It is empty.", "supported": "PDF and text"}
    with pytest.raises(UserFacingError, match="It is empty. Supported are PDF and text."):
        ask(fake, book, "Who?")
    with pytest.raises(UserFacingError, match="none.txt"):
        ask(fake, tmp_path / "none.txt", "Who?")


@pytest.mark.parametrize(
    "flags", [["--model", "x"], ["--password", "x"], ["--ocr"], ["--page-size", "16"], ["--no-cache"]]
)
def test_what_the_app_has_decided_already_is_refused(fake, flags):
    with pytest.raises(UserFacingError, match=f"{flags[0]} cannot be said together with --url"):
        ask(fake, "Who?", *flags)


def test_what_the_environment_says_for_other_commands_is_passed_over(fake, monkeypatch, capsys):
    monkeypatch.setenv("QUEST_CHAT_MODEL", "other")
    assert ask(fake, "Who?") == 0


def test_no_model_and_no_engine_is_loaded(fake):
    code = (
        "import sys; from app import cli; cli.main(['ask', '--url', sys.argv[1], 'Who?']); "
        "print(*(name for name in ('torch', 'transformers', 'numba', 'gradio') if name in sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code, fake.url], capture_output=True, text=True)
    assert result.stdout == "Ada kept it.\n\n", result.stderr
