"""Flags, environment variables, and what is refused."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from app.errors import UserFacingError
from app.settings import add_arguments, add_server_arguments, default_data_dir, set_library_defaults, settings_from


def parse(*arguments: str, **environment: str):
    parser = argparse.ArgumentParser()
    add_arguments(parser, environment)
    add_server_arguments(parser, environment)
    return settings_from(parser.parse_args(arguments), environment)


def test_defaults():
    settings = parse(XDG_DATA_HOME="/data")
    assert (settings.model, settings.attention, settings.token_budget, settings.page_size) == (
        "embedded", "quest", 1024, 4,
    )
    assert (settings.host, settings.port, settings.context_tokens, settings.offline) == ("127.0.0.1", 7860, None, False)


def test_flags_win_over_the_environment():
    environment = {"QUEST_CHAT_TOKEN_BUDGET": "512", "QUEST_CHAT_PORT": "8000", "QUEST_CHAT_OFFLINE": "1"}
    settings = parse("--port", "9000", **environment)
    assert (settings.token_budget, settings.port, settings.offline) == (512, 9000, True)


@pytest.mark.parametrize(
    ("arguments", "host"),
    [(["--listen"], "0.0.0.0"), (["--listen", "10.0.0.5"], "10.0.0.5"), (["--host", "::1"], "::1"), ([], "127.0.0.1")],
)
def test_listen_is_a_host(arguments, host):
    assert parse(*arguments).host == host


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--page-size", "20"], "not 20"),
        (["--token-budget", "8"], "at least three pages"),
        (["--context-tokens", "10"], "at least 256"),
        (["--port", "70000"], "not 70000"),
    ],
)
def test_values_out_of_range_are_quoted(arguments, complaint):
    with pytest.raises(UserFacingError, match=complaint):
        parse(*arguments)


def test_a_bad_environment_variable_is_named():
    with pytest.raises(UserFacingError, match="QUEST_CHAT_PAGE_SIZE must be a number"):
        parse(QUEST_CHAT_PAGE_SIZE="large")
    with pytest.raises(UserFacingError, match="QUEST_CHAT_DEVICE must be one of"):
        parse(QUEST_CHAT_DEVICE="tpu")


def test_the_data_folder():
    assert default_data_dir({"XDG_DATA_HOME": "/data"}) == Path("/data/quest-chat")
    assert parse("--data-dir", "~/here").data_dir == Path.home() / "here"
    assert parse("--data-dir", "/x").cache_dir == Path("/x/models")


def test_eager_reaches_the_engine():
    assert not parse().engine_config().eager
    assert parse("--eager").engine_config().eager
    assert parse(QUEST_CHAT_EAGER="1").engine_config().eager


def test_weight_bits_reach_the_engine():
    assert parse().engine_config().weight_bits == 16
    assert parse("--weight-bits", "4").engine_config().weight_bits == 4
    assert parse(QUEST_CHAT_WEIGHT_BITS="8").engine_config().weight_bits == 8
    with pytest.raises(UserFacingError, match="--weight-bits must be one of"):
        parse("--weight-bits", "5")


def test_summary_levels_reach_the_engine():
    assert parse().engine_config().summary_levels == 1
    assert parse("--summary-levels", "2").engine_config().summary_levels == 2
    assert parse(QUEST_CHAT_SUMMARY_LEVELS="2").engine_config().summary_levels == 2
    with pytest.raises(UserFacingError, match="--summary-levels 2 is for --selection mean and quest: spread has one"):
        parse("--summary-levels", "2", "--selection", "spread")


def test_kv_bits_reach_the_engine():
    assert parse().engine_config().kv_bits == 16
    assert parse("--kv-bits", "8").engine_config().kv_bits == 8
    assert parse(QUEST_CHAT_KV_BITS="8").engine_config().kv_bits == 8
    with pytest.raises(UserFacingError, match="--kv-bits must be one of .*, not 4"):
        parse("--kv-bits", "4")


def test_openmp_threads_sleep_soon_unless_the_user_has_chosen(monkeypatch):
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")

    def defaults_with(**chosen):
        with monkeypatch.context() as patch:
            patch.setattr(os, "environ", dict(chosen))
            set_library_defaults(offline=False)
            return {name: os.environ[name] for name in names if name in os.environ}

    assert defaults_with() == {"GOMP_SPINCOUNT": "20000", "KMP_BLOCKTIME": "1"}
    assert defaults_with(GOMP_SPINCOUNT="5") == {"GOMP_SPINCOUNT": "5", "KMP_BLOCKTIME": "1"}
    # GNU's OpenMP would put the count above the policy.
    assert defaults_with(OMP_WAIT_POLICY="active") == {"OMP_WAIT_POLICY": "active"}


def test_without_a_home_folder_the_data_folder_must_be_named(monkeypatch, tmp_path):
    monkeypatch.setattr(Path, "home", classmethod(lambda cls: Path("~").expanduser()))
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(UserFacingError, match="--data-dir"):
        parse()
    assert parse("--data-dir", str(tmp_path)).data_dir == tmp_path
    with pytest.raises(UserFacingError, match="~nobody/data names no folder"):
        parse("--data-dir", "~nobody/data")
