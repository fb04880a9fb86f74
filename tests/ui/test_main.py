"""`python -m ui`: what becomes of the key that the environment brings."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("gradio")

from ui import __main__ as program


def test_the_key_of_the_environment_is_taken_and_not_handed_on(monkeypatch, tmp_path):
    monkeypatch.setenv("QUEST_CHAT_API_KEY", "a-key-of-my-own-choice")
    served = []

    class Assistant:
        notice = ""

        def __init__(self, settings, **options):
            served.append((settings.api_key, settings.host, "QUEST_CHAT_API_KEY" in os.environ))

        def close(self):
            pass

    monkeypatch.setattr("app.chat.assistant.Assistant", Assistant)
    monkeypatch.setattr("app.web.server.serve", lambda *arguments: None)
    monkeypatch.setattr(program, "ensure_port_is_free", lambda host, port: None)
    assert program.main(["--headless", "--listen", "--data-dir", str(tmp_path)]) == 0
    assert served == [("a-key-of-my-own-choice", "0.0.0.0", False)]
