"""What goes wrong with a model, for those who only pass it on."""

from __future__ import annotations


class ModelError(ValueError):
    """A model cannot be found, read or held; the message is a full sentence for the user."""
