"""The doctor names what is missing and exits accordingly."""

from __future__ import annotations

import importlib.metadata
import json
from types import SimpleNamespace

import pytest

from app import doctor
from app.settings import AppSettings


@pytest.fixture
def settings(tmp_path):
    return AppSettings(data_dir=tmp_path / "data", port=17863)


def test_the_report_names_what_is_here(settings, capsys):
    code = doctor.run_doctor(settings, as_json=True)
    report = json.loads(capsys.readouterr().out)
    assert {"python", "torch", "triton", "gpu", "memory", "cpu_features", "model_cache", "data_folder"} <= report.keys()
    assert report["torch"] == importlib.metadata.version("torch")
    assert code == (1 if any("not installed" in problem for problem in report["problems"]) else 0)


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
