"""The key of a server: when there is one, what is kept of it, and what is refused."""

from __future__ import annotations

import json
import os
import re

import pytest

from app.errors import UserFacingError
from app.settings import AppSettings
from app.web.access.key import KEY_FILE, is_loopback, open_access_key

OWN = "a-key-of-my-own-choice"


@pytest.fixture
def settings(tmp_path):
    return lambda **fields: AppSettings(data_dir=tmp_path / "data", **{"host": "0.0.0.0"} | fields)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.8.9.1"])
def test_on_the_loopback_nothing_is_asked_or_kept(settings, host):
    assert open_access_key(settings(host=host)) is None
    assert not settings().data_dir.exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]", "192.168.7.7", "my-machine", "127.0.0.1.evil.example", ""])
def test_whatever_is_not_surely_the_loopback_is_the_network(host):
    assert not is_loopback(host)


def test_a_key_is_made_once_and_is_long_enough(settings):
    first = open_access_key(settings())
    # 24 random bytes are 32 letters of six bits each.
    assert re.fullmatch(r"[\w-]{32}", first.made)
    again = open_access_key(settings())
    assert again.made == ""
    assert again.is_key(first.made) and again.is_cookie(first.cookie())
    assert not again.is_key(first.made[:-1]) and not again.is_key("") and not again.is_cookie("")


def test_the_key_itself_is_not_kept_and_not_told(settings):
    access = open_access_key(settings())
    path = settings().data_dir / KEY_FILE
    assert access.made not in path.read_text()
    assert access.cookie() not in path.read_text()
    assert access.made not in repr(access)
    assert OWN not in repr(settings(api_key=OWN))
    assert [entry.name for entry in path.parent.iterdir()] == [KEY_FILE]


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such modes")
def test_the_file_is_for_its_owner_alone(settings):
    open_access_key(settings())
    path = settings().data_dir / KEY_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    open_access_key(settings())
    assert path.stat().st_mode & 0o777 == 0o600


def test_another_key_ends_the_first_and_its_cookies(settings):
    first, second = open_access_key(settings()), open_access_key(settings(new_api_key=True))
    assert second.made and second.made != first.made
    assert not second.is_key(first.made) and not second.is_cookie(first.cookie())
    assert open_access_key(settings()).is_key(second.made)


def test_a_key_that_was_set_is_not_kept_and_its_cookies_survive_a_restart(settings):
    made = open_access_key(settings())
    first = open_access_key(settings(api_key=OWN, host="127.0.0.1"))
    assert first.made == "" and first.is_key(OWN) and not first.is_key(made.made)
    assert open_access_key(settings(api_key=OWN)).is_cookie(first.cookie())
    assert not open_access_key(settings(api_key=OWN + "!")).is_cookie(first.cookie())
    assert open_access_key(settings()).is_key(made.made)


def test_a_key_can_be_set_before_one_was_made(settings):
    cookie = open_access_key(settings(api_key=OWN)).cookie()
    assert open_access_key(settings(api_key=OWN)).is_cookie(cookie)
    assert open_access_key(settings()).made


@pytest.mark.parametrize("key", ["short", "fifteen-letters", "with a space in its middle", "schlüssel-mit-umlaut"])
def test_a_bad_key_is_refused(settings, key):
    with pytest.raises(UserFacingError, match="--api-key"):
        open_access_key(settings(api_key=key))


@pytest.mark.parametrize("fields", [{"host": "127.0.0.1"}, {"api_key": OWN}])
def test_a_new_key_where_none_would_be_made_is_refused(settings, fields):
    with pytest.raises(UserFacingError, match="--new-api-key"):
        open_access_key(settings(new_api_key=True, **fields))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        json.dumps({"key_sha256": "00", "cookie_secret": "00" * 32}),
        json.dumps({"key_sha256": "00" * 32, "cookie_secret": ""}),
        json.dumps({"key_sha256": 5, "cookie_secret": None}),
    ],
)
def test_a_damaged_file_lets_nobody_in(settings, content):
    settings().data_dir.mkdir()
    (settings().data_dir / KEY_FILE).write_text(content)
    with pytest.raises(UserFacingError, match="damaged. Delete it"):
        open_access_key(settings())


def test_a_folder_that_cannot_be_written_to_is_told(settings, tmp_path):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(UserFacingError):
        open_access_key(settings())
