"""How far a long task is, on the terminal: one line that changes, or a few lines in a log."""

from __future__ import annotations

import time
from typing import TextIO

# Between two lines of progress in a log.
_LOG_INTERVAL_S = 5.0


class ProgressLine:
    """One line on a terminal that is written over; in a log, a line now and then."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._last_line_s = -_LOG_INTERVAL_S

    def show(self, text: str, last: bool = False) -> None:
        """Show `text`; if it is the `last` of its kind it stays."""
        if self._is_terminal:
            # Erases what is left of a longer line before it.
            print(f"\r{text}\x1b[K", end="\n" if last else "", file=self._stream, flush=True)
            return
        now = time.monotonic()
        if last or now - self._last_line_s >= _LOG_INTERVAL_S:
            print(text, file=self._stream, flush=True)
            self._last_line_s = now
