"""What the terminal says of the key: it itself once, and never one that was set."""

from __future__ import annotations

import pytest

from app.settings import AppSettings
from app.web.access.key import open_access_key
from app.web.server import _announce

OWN = "a-key-of-my-own-choice"


@pytest.fixture
def announced(tmp_path, capsys):
    def announced(**fields) -> tuple[str, str]:
        settings = AppSettings(data_dir=tmp_path, no_browser=True, **{"host": "0.0.0.0"} | fields)
        access = open_access_key(settings)
        _announce(settings, access, "")
        return capsys.readouterr().out, access.made if access else ""

    return announced


def test_a_key_that_was_made_is_shown_once(announced):
    said, key = announced()
    assert said.count(key) == 1 and "shown only this once" in said
    again, _ = announced()
    assert key not in again and "--new-api-key" in again
    new, another = announced(new_api_key=True)
    assert another in new and another != key


def test_a_key_that_was_set_is_not_shown(announced):
    said, _ = announced(api_key=OWN)
    assert "the key that you have set" in said and OWN not in said


def test_on_the_loopback_no_key_is_spoken_of(announced):
    said, _ = announced(host="127.0.0.1")
    assert "key" not in said


def test_without_the_page_no_browser_is_opened(tmp_path, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr("app.web.server._open_in_browser", opened.append)
    for is_headless in (True, False):
        _announce(AppSettings(data_dir=tmp_path, headless=is_headless), None, "")
    assert opened == ["http://127.0.0.1:7860"]
    assert "without its page" in capsys.readouterr().out
