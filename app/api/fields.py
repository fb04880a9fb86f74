"""Fields of a JSON request: read one by one, checked, and what is left refused by name.

Knows nothing of what they mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.api.errors import refused


class Fields:
    """The fields of an object; null is as good as absent.

    Args:
        values: the object.
        inside: what its names stand below, e.g. "stream_options".
    """

    def __init__(self, values: dict[str, Any], inside: str = "") -> None:
        self._values = {name: value for name, value in values.items() if value is not None}
        self._inside = f"{inside}." if inside else ""

    def name(self, name: str) -> str:
        """A field's whole name, for errors."""
        return f"{self._inside}{name}"

    def take(self, name: str, default: Any = None) -> Any:
        """Whatever stands there."""
        return self._values.pop(name, default)

    def take_text(self, name: str, default: str | None = None) -> str | None:
        value = self.take(name, default)
        if value is not None and not isinstance(value, str):
            raise refused(f"{self.name(name)} must be a string.", self.name(name))
        return value

    def take_bool(self, name: str) -> bool:
        value = self.take(name, False)
        if not isinstance(value, bool):
            raise refused(f"{self.name(name)} must be true or false.", self.name(name))
        return value

    def take_whole(self, name: str, least: int, most: int, default: int | None = None) -> int | None:
        value = self.take(name, default)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise refused(f"{self.name(name)} must be a whole number from {least} to {most}.", self.name(name))
        return value

    def take_number(self, name: str, least: float, most: float, default: float) -> float:
        value = self.take(name, default)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        # No number is between them that is none, or infinite.
        if not is_number or not least <= value <= most:
            raise refused(f"{self.name(name)} must be a number from {least:g} to {most:g}.", self.name(name))
        return float(value)

    def take_object(self, name: str) -> Fields | None:
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise refused(f"{self.name(name)} must be an object.", self.name(name))
        return Fields(value, self.name(name))

    def take_neutral(self, name: str, neutral: Sequence[Any], why: str) -> None:
        """A field that only its neutral values are taken of."""
        value = self.take(name)
        # 1 and true, or 0 and false, are equal in Python.
        if value is not None and (value not in neutral or isinstance(value, bool) != isinstance(neutral[0], bool)):
            raise refused(f"{self.name(name)} is not supported: {why}", self.name(name), "unsupported_parameter")

    def ignore(self, *names: str) -> None:
        """Fields that change nothing in an answer."""
        for name in names:
            self.take(name)

    def end(self) -> None:
        """Refuse whatever nobody took."""
        for name in self._values:
            # A lone surrogate could not be told.
            whole = self.name(name[:100].encode("utf-8", "replace").decode("utf-8"))
            raise refused(f"{whole} is not known here. Leave it out.", whole, "unknown_parameter")
