"""A data folder that cannot be written to is told of in a sentence, wherever that is noticed."""

from __future__ import annotations

import errno
import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from app.chat.assistant import Assistant
from app.errors import UserFacingError
from app.settings import AppSettings
from app.store.data_folder import explain_storage_error

FOLDER = Path("/me/data")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "/me/data/models"),
            "The data folder /me/data cannot be written to (models): Permission denied. "
            "Choose another with --data-dir.",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "/me/data"),
            "The data folder /me/data cannot be written to: Read-only file system. Choose another with --data-dir.",
        ),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
            "The disk of the data folder /me/data is full. Free some space (`python launch.py doctor` says what takes "
            "how much of the folder, and removing a document gives its part back), or choose a folder on another disk "
            "with --data-dir.",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/models/x"), "[Errno 13] Permission denied: '/models/x'"),
        (OSError("The hub does not answer."), "The hub does not answer."),
    ],
)
def test_what_is_told(error, sentence):
    assert explain_storage_error(error, FOLDER) == sentence


@pytest.fixture
def settings(tmp_path) -> AppSettings:
    """A data folder that is none; nobody can write there, not even root."""
    (tmp_path / "data").write_text("a file")
    return AppSettings(data_dir=tmp_path / "data", device="cpu")


def test_the_page_is_not_opened(settings):
    create_app = pytest.importorskip("app.web.server").create_app
    with pytest.raises(UserFacingError, match="The data folder .*data cannot be written to.*--data-dir"):
        create_app(settings, None, None)


def test_the_assistant_does_not_start(settings):
    with pytest.raises(UserFacingError, match="The data folder .*data cannot be written to.*--data-dir"):
        Assistant(settings)


def test_the_model_is_not_loaded(settings, tmp_path):
    settings = replace(settings, data_dir=tmp_path / "whole")
    settings.data_dir.mkdir()
    settings.cache_dir.write_text("a file")
    with closing(Assistant(settings)) as assistant:
        with pytest.raises(UserFacingError, match=r"cannot be converted: .*whole/models\). Check .*--data-dir"):
            assistant.wait_until_ready()
