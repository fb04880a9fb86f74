"""Flags, environment variables, and what is refused."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.errors import UserFacingError
from app.flags import add_flags, add_server_flags, byte_size
from app.measure.policies import POLICIES
from app.settings import (
    LEAST_CACHE_BYTES,
    MOST_CACHE_BYTES,
    default_cache_bytes,
    default_data_dir,
    set_library_defaults,
    settings_from,
)


def parse(*arguments: str, **environment: str):
    parser = argparse.ArgumentParser()
    add_flags(parser, environment=environment)
    add_server_flags(parser, environment)
    return settings_from(parser.parse_args(arguments), environment)


def test_defaults():
    settings = parse(XDG_DATA_HOME="/data")
    assert (settings.model, settings.attention, settings.token_budget, settings.page_size) == (
        "embedded",
        "auto",
        1024,
        4,
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


def test_summary_levels_are_a_setting_no_more(capsys):
    assert parse(QUEST_CHAT_SUMMARY_LEVELS="2") == parse()
    with pytest.raises(SystemExit):
        parse("--summary-levels", "2")
    assert "unrecognized arguments: --summary-levels 2" in capsys.readouterr().err


@pytest.mark.parametrize("selection", ["spread", *POLICIES])
def test_the_product_offers_no_rivals_selection(selection, capsys):
    assert parse("--selection", "quest").selection == "quest"
    with pytest.raises(SystemExit):
        parse("--selection", selection)
    assert "(choose from 'mean', 'quest')" in capsys.readouterr().err
    with pytest.raises(UserFacingError, match="QUEST_CHAT_SELECTION must be one of mean, quest, not"):
        parse(QUEST_CHAT_SELECTION=selection)


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


@pytest.mark.parametrize(
    ("text", "size"),
    [("20G", 20 << 30), ("1.5g", 3 << 29), ("500 MB", 500 << 20), ("2TiB", 2 << 40), ("4096", 4096), ("7k", 7168)],
)
def test_sizes_as_people_write_them(text, size):
    assert byte_size(text) == size
    assert parse(QUEST_CHAT_CACHE_BYTES=text).cache_bytes == parse("--cache-bytes", text).cache_bytes == size


@pytest.mark.parametrize("text", ["", "G", "-1G", "20X", "1e9", "0", "0.0001", "nan", "٣G"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="like 20G"):
        byte_size(text)
    if text:
        with pytest.raises(UserFacingError, match="QUEST_CHAT_CACHE_BYTES"):
            parse(QUEST_CHAT_CACHE_BYTES=text)


def test_the_cache_takes_a_quarter_of_the_free_disk_within_limits(monkeypatch, tmp_path):
    def free(free_bytes):
        monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=free_bytes))

    for free_bytes, expected in ((1 << 30, LEAST_CACHE_BYTES), (40 << 30, 10 << 30), (1 << 50, MOST_CACHE_BYTES)):
        free(free_bytes)
        assert default_cache_bytes(tmp_path / "not" / "there" / "yet") == expected
    # What is kept already does not make the share smaller from start to start.
    (tmp_path / "snapshots" / "model").mkdir(parents=True)
    (tmp_path / "snapshots" / "model" / "segment").write_bytes(bytes(4096))
    free((40 << 30) - 4096)
    assert default_cache_bytes(tmp_path) == 10 << 30


def test_only_what_is_to_be_kept_is_kept(tmp_path):
    settings = parse("--data-dir", str(tmp_path), "--cache-bytes", "3G")
    assert settings.engine_config().snapshot_dir is None
    config = settings.engine_config(keeps_snapshots=True, snapshots_read_only=True)
    assert (config.snapshot_dir, config.snapshot_bytes, config.snapshots_read_only) == (
        tmp_path / "snapshots", 3 << 30, True,
    )  # fmt: skip
