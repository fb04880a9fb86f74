"""What may go wrong in showing a document page; every message is meant for the user."""

from __future__ import annotations

from app.errors import UserFacingError


class RenderError(UserFacingError):
    """A page, or the whole document, cannot be shown as its author made it."""


class LockedError(RenderError):
    """The file is encrypted with a password, which is not kept."""


class ProcessLost(RenderError):
    """The render process hung, crashed or went beyond its limits, and is gone."""


class ProcessEnded(Exception):
    """The render process was ended from outside while it was asked: what it was asked can be asked again."""


class RenderBusy(RenderError):
    """So much waits to be shown that this has been given up."""
