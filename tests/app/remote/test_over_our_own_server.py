"""A conversation over our own server in another process: the API that we serve is one that we can use."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from app.chat.answers.answer import AnswerOptions, Finished
from quest_core.model.model_source import EMBEDDED_PACKAGE

httpx = pytest.importorskip("httpx")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec(EMBEDDED_PACKAGE) is None, reason="needs the embedded model (requirements-model.txt)"),
]

ROOT = Path(__file__).parents[3]
KEY = "a-key-of-sixteen-or-more"
START_S = 90


@pytest.fixture
def own_server(tmp_path):
    """The address of a server without the page that wants a key."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "ui", "--headless", "--offline", "--port", str(port)]
    process = subprocess.Popen([*command, "--data-dir", str(tmp_path / "server"), "--api-key", KEY], cwd=ROOT)
    address, end = f"http://127.0.0.1:{port}", time.monotonic() + START_S
    try:
        while time.monotonic() < end and process.poll() is None:
            try:
                asked = httpx.get(f"{address}/v1/models", headers={"Authorization": f"Bearer {KEY}"}, trust_env=False)
                if asked.status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        else:
            pytest.fail("the server did not start")
        yield address
    finally:
        process.terminate()
        process.wait(20)


def test_our_own_server_answers_keeps_the_document_and_wants_its_key(own_server, open_remote, book_path):
    from app.errors import UserFacingError

    assistant = open_remote(engine_url=own_server, engine_key=KEY)
    assistant.wait_until_ready()
    status = assistant.status()
    assert "SmolLM2" in status.model and status.context_tokens == 16384 and status.engine_url == own_server
    conversation = assistant.new_conversation()
    for _ in assistant.read_document(conversation, book_path):
        pass
    events = list(assistant.ask(conversation, "Who kept the light?", AnswerOptions(max_new_tokens=200)).follow())
    report = events[-1].report
    assert isinstance(events[-1], Finished) and report.answer and report.prompt_tokens > 100
    again = list(assistant.ask(conversation, "Why?", AnswerOptions(max_new_tokens=200)).follow())[-1].report
    # The document stands at the beginning of both prompts.
    assert again.reused_tokens > 100
    # It is known by now not to think: the server ends the answer, and tells its usage.
    cut = list(assistant.ask(conversation, "Tell all of it.", AnswerOptions(max_new_tokens=4)).follow())[-1].report
    assert (cut.finish_reason, cut.decode_tokens) == ("length", 4)
    assert cut.reused_tokens > 100 and not cut.tokens_estimated
    assistant.close()
    wrong = open_remote(engine_url=own_server, engine_key=KEY + "?")
    with pytest.raises(UserFacingError, match="key"):
        wrong.wait_until_ready()
