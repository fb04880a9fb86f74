"""The doctor names what is missing and exits accordingly."""

from __future__ import annotations

import importlib.metadata
import json
import os
from types import SimpleNamespace

import pytest

from app import doctor
from app.settings import AppSettings
from app.store.database import DATABASE_NAME
from app.store.folder_lock import FolderLock


@pytest.fixture
def settings(tmp_path):
    return AppSettings(data_dir=tmp_path / "data", port=17863)


def test_the_report_names_what_is_here(settings, capsys):
    code = doctor.run_doctor(settings, as_json=True)
    report = json.loads(capsys.readouterr().out)
    assert {"python", "torch", "triton", "gpu", "memory", "cpu_features", "model_cache", "data_folder"} <= report.keys()
    assert report["torch"] == importlib.metadata.version("torch")
    assert code == (1 if any("not installed" in problem for problem in report["problems"]) else 0)


def test_the_report_has_the_sizes_of_what_is_kept(settings, capsys):
    settings.data_dir.mkdir()
    lock = FolderLock.acquire(settings.data_dir, "http://127.0.0.1:7860")
    doctor.run_doctor(settings, as_json=True)
    report = json.loads(capsys.readouterr().out)
    lock.release()
    assert report["used_by"] == f"process {os.getpid()}, http://127.0.0.1:7860"
    assert report["storage"]["used_by"] == {"process_id": os.getpid(), "address": "http://127.0.0.1:7860"}
    assert {"documents_bytes", "database_bytes", "snapshots_bytes", "models_bytes"} <= report["storage"].keys()
    assert report["documents"] == "0, 0 bytes"


def test_verifying_tells_what_was_damaged(settings, capsys):
    settings.data_dir.mkdir()
    (settings.data_dir / DATABASE_NAME).write_bytes(b"not a database at all, " * 500)
    assert doctor.run_doctor(settings, as_json=False) == 1
    assert "PROBLEM: The database" in (report := capsys.readouterr().out) and "doctor --verify" in report
    doctor.run_doctor(settings, as_json=False, verify=True)
    report = capsys.readouterr().out
    assert "note: The database of the data folder was damaged and has been put aside" in report
    assert "verified" in report and "1 fault" in report
    doctor.run_doctor(settings, as_json=False, verify=True)
    assert "all that is kept is whole" in capsys.readouterr().out


def test_a_missing_essential_package_is_a_failure(settings, capsys, monkeypatch):
    original = importlib.metadata.version

    def version(name):
        if name == "safetensors":
            raise importlib.metadata.PackageNotFoundError(name)
        return original(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert doctor.run_doctor(settings, as_json=False) == 1
    assert "PROBLEM: safetensors is not installed" in capsys.readouterr().out


def test_a_full_disk_is_a_note(settings, capsys, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    doctor.run_doctor(settings, as_json=False)
    assert "note: less than 1 GiB of disk space" in capsys.readouterr().out
