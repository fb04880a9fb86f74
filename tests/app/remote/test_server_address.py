"""What a user may give as the address and key of another engine."""

from __future__ import annotations

import argparse

import pytest

from app.errors import UserFacingError
from app.remote.server_address import ServerAddress
from app.settings import AppSettings, forget_api_key, settings_from


@pytest.mark.parametrize(
    "url",
    [
        "http://box:8000",
        "http://box:8000/",
        "http://box:8000/v1",
        "http://box:8000/v1/",
        "box:8000",
        " http://box:8000/v1/chat/completions ",
    ],
)
def test_an_address_may_end_with_or_without_v1(url):
    address = ServerAddress.of(url)
    assert (address.base, address.shown) == ("http://box:8000/v1", "http://box:8000")


def test_a_path_before_v1_stays():
    assert ServerAddress.of("https://box/engine/").base == "https://box/engine/v1"


@pytest.mark.parametrize(
    "url", ["", "http://", "ftp://box", "http://box:port", "http://me:secret@box", "http://a b", "http://box/v1?key=1"]
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(UserFacingError, match="--engine-url") as refused:
        ServerAddress.of(url)
    assert "secret" not in refused.value.message


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel"])
def test_what_cannot_be_a_key_is_refused_without_saying_it(key):
    with pytest.raises(UserFacingError) as refused:
        ServerAddress.of("http://box", key)
    assert key not in refused.value.message


def test_the_key_is_in_no_description(tmp_path):
    settings = AppSettings(data_dir=tmp_path, engine_url="http://box", engine_key="sk-hush")
    assert "sk-hush" not in repr(settings) + repr(ServerAddress.of("http://box", "sk-hush"))
    assert ServerAddress.of("http://box", "sk-hush").without_key("key sk-hush is wrong") == "key … is wrong"


def test_the_key_leaves_the_environment():
    environment = {"QUEST_CHAT_ENGINE_KEY": "sk-hush"}
    forget_api_key(environment)
    assert environment == {}


@pytest.mark.parametrize(
    ("options", "about"),
    [
        ({"engine_url": "http://box", "attention": "exact"}, "--attention exact needs the cache"),
        ({"engine_url": "http://box", "model": "Qwen/Qwen3-4B"}, "--engine-model"),
        ({"engine_key": "sk"}, "--engine-url"),
        ({"engine_model": "m"}, "--engine-url"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path, options, about):
    with pytest.raises(UserFacingError, match=about):
        settings_from(argparse.Namespace(data_dir=tmp_path, **options), {})
