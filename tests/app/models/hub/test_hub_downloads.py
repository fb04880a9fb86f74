"""Downloads from a hub on the loopback: paused and resumed at any byte, checked, refused in plain words."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants, snapshot_download

from app.errors import UserFacingError
from app.models.hub import hub_downloads, hub_requests
from app.models.hub.hub_cache import HubCache
from app.models.hub.hub_downloads import HubDownloads
from app.models.hub.hub_model import HubError, HubFile, HubModel
from app.models.hub.hub_requests import Unreachable, look_up
from app.models.hub.hub_transfer import Transfer
from quest_core.model.model_source import HUB_FILES, HUB_IGNORED, find_model
from tests.app.models.hub.hub_server import TOKEN, HubServer, Repository, blob_of, send_to

CONFIG = json.dumps({"model_type": "qwen3", "max_position_embeddings": 40960}).encode()
WEIGHTS = random.Random(1).randbytes(1_500_000)
MORE_WEIGHTS = random.Random(2).randbytes(700_000)
GOOD = {
    "config.json": CONFIG,
    "tokenizer.json": json.dumps({"model": "x" * 5000}).encode(),
    "merges.txt": b"",
    "model-00001-of-00002.safetensors": WEIGHTS,
    "model-00002-of-00002.safetensors": MORE_WEIGHTS,
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    ).encode(),
    "pytorch_model.bin": b"pickled" * 900,
    "modeling_evil.py": b"import os",
    "consolidated.safetensors": WEIGHTS[:9000],
    "original/model.safetensors": WEIGHTS[:9000],
}
WANTED = {"config.json", "tokenizer.json", "merges.txt"} | {
    name for name in GOOD if name.startswith(("model-", "model."))
}
FILE = "model-Q4_K_M.gguf"


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[HubServer]:
    """A hub that this process and those it starts are sent to, and a cache of its own."""
    server = HubServer(
        {
            "good/model": Repository(GOOD),
            "other/model": Repository({"config.json": CONFIG, "model.safetensors": MORE_WEIGHTS}),
            "shut/model": Repository({"config.json": CONFIG, "model.safetensors": WEIGHTS}, "llama3.1", gated="auto"),
            "strange/model": Repository({"config.json": b'{"model_type": "gemma3"}', "model.safetensors": WEIGHTS}),
            "pickled/model": Repository({"config.json": CONFIG, "pytorch_model.bin": WEIGHTS}),
            "packed/model": Repository({FILE: MORE_WEIGHTS, "model-Q8_0.gguf": WEIGHTS, "README.md": b"#"}),
        }
    )
    send_to(server, tmp_path / "hf", monkeypatch)
    yield server
    server.close()


@pytest.fixture
def open_downloads(tmp_path, hub) -> Iterator[Callable[[], HubDownloads]]:
    """Opens the downloads of one data folder, as each start of the app does."""
    opened = []

    def open_them() -> HubDownloads:
        opened.append(HubDownloads(tmp_path / "model-downloads.json", False, lambda: None, pause_s=0.05))
        return opened[-1]

    yield open_them
    for downloads in opened:
        downloads.close()


def wait_for(downloads: HubDownloads, model: str, is_there: Callable[[dict], bool]) -> dict:
    """The listing of a download once it is so; fails after a minute."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        listing = next(one for one in downloads.listing() if one["model"] == model)
        if is_there(listing):
            return listing
        time.sleep(0.02)
    raise AssertionError(f"still {listing}")


def transfer(model: HubModel, told: list[dict]) -> HubCache:
    """Download in this process; gives the cache."""
    cache = HubCache.default()
    Transfer(model, cache, lambda **fields: told.append(fields), pause_s=0.01).run()
    return cache


def test_a_download_is_paused_at_once_resumed_after_a_restart_and_whole_at_the_end(hub, open_downloads, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    downloads = open_downloads()
    hub.faults.bytes_per_s = 1e6
    downloads.start("good/model")
    downloads.start("other/model")
    running = wait_for(downloads, "good/model", lambda one: one["done_bytes"] > 300_000)
    assert running["state"] == "downloading" and running["licence"] == "apache-2.0"
    assert running["total_bytes"] == sum(len(GOOD[name]) for name in WANTED)
    assert downloads.listing()[1]["state"] == "queued"
    downloads.pause("good/model")
    downloads.pause("other/model")
    time.sleep(0.3)
    asked = len(hub.requests)
    downloads.close()
    # Nobody finds half a model.
    assert not HubCache.default().has("good/model")

    hub.faults.bytes_per_s, hub.faults.cuts, hub.faults.cut_after_bytes = 0, 3, 200_000
    again = open_downloads()
    kept = again.listing()[0]
    assert kept["state"] == "paused" and 300_000 < kept["done_bytes"] < kept["total_bytes"]
    assert len(hub.requests) == asked
    again.start("good/model")
    done = wait_for(again, "good/model", lambda one: one["state"] in ("done", "failed"))
    assert done["state"] == "done" and done["done_bytes"] == done["total_bytes"] and done["place"] == "good/model"
    # Each cut was gone on from where it was, and the token went to the hub alone.
    starts = [headers.get("Range") for headers in hub.bodies(blob_of(WEIGHTS)) + hub.bodies(blob_of(MORE_WEIGHTS))]
    assert len([start for start in starts if start]) >= 3
    assert not any("Authorization" in headers for headers in hub.bodies("/large/"))
    assert any(headers.get("authorization", headers.get("Authorization")) for _, _, headers in hub.requests)
    folder = Path(
        snapshot_download("good/model", allow_patterns=HUB_FILES, ignore_patterns=HUB_IGNORED, local_files_only=True)
    )
    assert {path.name for path in folder.iterdir()} == WANTED
    assert all((folder / name).read_bytes() == GOOD[name] for name in WANTED)
    # And about what is whole the hub is not asked again.
    asked = len(hub.requests)
    assert find_model("good/model", Path("nowhere")) == ("model", folder) and len(hub.requests) == asked
    assert again.cache.has("good/model") and not list(folder.parent.parent.glob("blobs/*.incomplete"))
    again.cancel("good/model", keep=False)
    assert again.cache.has("good/model") and [one["model"] for one in again.listing()] == ["other/model"]


def test_what_is_cancelled_goes_or_stays_as_asked(hub, open_downloads):
    downloads = open_downloads()
    hub.faults.bytes_per_s = 3e5
    blobs = downloads.cache.repository_folder("other/model") / "blobs"
    downloads.start("other/model")
    wait_for(downloads, "other/model", lambda one: one["done_bytes"] > 50_000)
    downloads.cancel("other/model", keep=True)
    assert downloads.listing() == [] and list(blobs.glob("*.incomplete"))
    downloads.start("other/model")
    wait_for(downloads, "other/model", lambda one: one["done_bytes"] > 50_000)
    downloads.cancel("other/model", keep=False)
    end = time.monotonic() + 20
    while blobs.exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert not blobs.exists() and downloads.listing() == []
    with pytest.raises(UserFacingError, match="not in the list"):
        downloads.pause("other/model")


def test_a_damaged_file_is_thrown_away_and_the_hubs_troubles_are_waited_for(hub):
    model, told = look_up("other/model"), []
    assert (model.family, model.window_tokens, model.licence) == ("qwen3", 40960, "apache-2.0")
    hub.faults.wrong_bytes = 1
    with pytest.raises(HubError, match=r"model\.safetensors arrived damaged.*thrown away"):
        transfer(model, told)
    assert HubCache.default().present_bytes(model) == len(CONFIG)

    hub.faults.statuses = [(429, {"Retry-After": "0.2"}), (503, {}), (403, {})]
    hub.faults.cuts, hub.faults.cut_after_bytes, hub.faults.ignores_ranges = 1, 100_000, True
    told.clear()
    cache = transfer(model, told)
    waits = [fields for fields in told if fields["kind"] == "waiting"]
    assert [wait["message"] for wait in waits] == [
        "The hub has had too many requests from this address",
        "The hub has trouble of its own (503)",
        "The address of the file has expired (403)",
        f"The connection to {hub_requests.hub_name()} was lost",
    ]
    assert waits[0]["pause_s"] == 0.2 and waits[3]["done_bytes"] == len(CONFIG) + 100_000
    # Where the rest cannot be had, the file is fetched anew, and counted once.
    assert told[-1] == {"kind": "progress", "done_bytes": model.total_bytes}
    assert (cache.add_snapshot(model) / "model.safetensors").read_bytes() == MORE_WEIGHTS


def test_the_hub_refuses_in_plain_words(hub, monkeypatch):
    def refusal(model: str) -> str:
        with pytest.raises(HubError) as raised:
            look_up(model)
        assert TOKEN not in raised.value.message
        return raised.value.message

    assert "accept it there" in refusal("shut/model") and "HF_TOKEN" in refusal("shut/model")
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    assert "your account has not been let in" in refusal("shut/model")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert look_up("shut/model").is_gated and look_up("shut/model").licence == "llama3.1"
    assert "knows no model no/such" in refusal("no/such")
    for name in ("name", "../../etc", "a/b/c", "a--b/c", "a/..", "a/b/../x.gguf", "https://hub/a/b"):
        assert "There is no model" in refusal(name)
    assert "cannot read ('gemma3')" in refusal("strange/model")
    assert "pickled" in refusal("pickled/model")
    assert f"packed/model/{FILE}" in refusal("packed/model")
    assert "has no file" in refusal("packed/model/other.gguf")
    assert [file.name for file in look_up(f"packed/model/{FILE}").files] == [FILE]
    hub.repositories["good/model"] = Repository(GOOD | {"..\\evil.json": b"{}", "a\0b.json": b"{}"})
    assert "is no name of a file" in refusal("good/model")
    hub.faults.api_status = 500
    assert "trouble of its own" in refusal("good/model")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(Unreachable, match="was lost"):
        look_up("good/model")


def test_a_full_disk_and_another_program_are_told_before_anything_is_written(hub, monkeypatch, tmp_path):
    from filelock import FileLock

    model = look_up("other/model")
    cache = HubCache.default()
    lock = cache.lock(model, model.files[0])
    lock.parent.mkdir(parents=True)
    with FileLock(lock), pytest.raises(HubError, match="Another program is downloading"):
        transfer(model, [])
    huge = HubModel(**{**model.__dict__, "files": (HubFile("model.safetensors", 1 << 49, "0" * 64),)})
    with pytest.raises(HubError, match="GiB more on the disk"):
        transfer(huge, [])
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=(1 << 30) + 1000))
    with pytest.raises(HubError, match="Free some space"):
        transfer(model, [])


def test_a_silent_hub_and_an_app_that_is_offline_keep_nobody_waiting(hub, open_downloads, monkeypatch):
    monkeypatch.setattr(hub_downloads, "_LOOK_UP_S", 1.0)
    hub.faults.is_silent = True
    with pytest.raises(UserFacingError, match="did not answer within 1 seconds"):
        open_downloads().look_up("good/model")
    hub.faults.is_silent = False
    asked = len(hub.requests)
    offline = HubDownloads(None, True, lambda: None)
    for ask in (offline.look_up, offline.start):
        with pytest.raises(UserFacingError, match="offline"):
            ask("good/model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "offline" in HubDownloads(None, False, lambda: None).refusal
    assert len(hub.requests) == asked
