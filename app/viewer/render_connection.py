"""One render process, asked from the thread that started it: a time limit a request, and an end to it in any case.

Whoever waits here is not the reason for what goes wrong there: a process that hangs is killed, and what it answers is
believed only as far as it has the form of an answer.
"""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Mapping
from typing import Any

from app.limited_process import start_python
from app.viewer.errors import LockedError, ProcessEnded, ProcessLost, RenderError

_MODULE = "app.viewer.render_process"
# What every answer tells.
_COUNTS = ("bytes", "cpu_s", "memory_bytes")
# The largest picture and the longest list of page sizes are far smaller.
_MOST_LINE_BYTES = 8 << 20
_MOST_PAYLOAD_BYTES = 64 << 20
# Long before its limits: what is running should come to its end, and memory that a page has taken is not given back.
_RETIRED_CPU_S = 600
_RETIRED_MEMORY_BYTES = 384 << 20
_REFUSALS: Mapping[str, RenderError] = {
    "locked": LockedError(
        "The file is protected with a password, which is not kept: its pages are shown as text only."
    ),
    "missing": RenderError("The file is gone: its pages are shown as text only. Add it again to see them."),
    "damaged": RenderError("This cannot be shown as it looks: the file is damaged. Its text is shown instead."),
    "no_page": RenderError("The file has no such page that can be shown. Its text is shown instead."),
    "not_installed": RenderError(
        "Pages are shown as text only: the package pypdfium2 is not installed. Run `python -m pip install -r "
        "requirements.txt`, or start without --skip-install."
    ),
    "too_large": RenderError("This page is too large to be shown as it looks. Its text is shown instead."),
}
_HUNG = "This page takes too long to be shown as it looks. Its text is shown instead."
_CRASHED = "This page cannot be shown as it looks: it needs too much memory, or is damaged. Its text is shown instead."


class RenderConnection:
    """A render process. Made, used and closed by one thread, which lives at least as long."""

    def __init__(self) -> None:
        self._process = start_python(_MODULE)
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[dict[str, Any], bytes] | None] = queue.SimpleQueue()
        # A thread, because writing to a process that does not read waits for ever, and so does reading.
        self._exchange = threading.Thread(target=self._exchange_all, name="render-exchange", daemon=True)
        self._exchange.start()
        self._is_spent = False
        self._is_ended = False
        self._is_closed = False

    @property
    def is_usable(self) -> bool:
        """Whether it can be asked more: it has not been lost, and has not lived too long."""
        return not (self._is_closed or self._is_ended or self._is_spent) and self._process.poll() is None

    def ask(self, request: dict[str, Any], timeout_s: float) -> tuple[dict[str, Any], bytes]:
        """Ask for something; see `page_rendering` for what.

        Args:
            request: can be written as JSON.
            timeout_s: how long the answer may take.

        Returns:
            The answer, and the bytes that came with it.

        Raises:
            RenderError: it cannot be given; `LockedError`, or `ProcessLost` if the process is gone now.
            ProcessEnded: because of `end`.
        """
        self._requests.put(json.dumps(request).encode() + b"\n")
        try:
            received = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            self.close()
            raise ProcessLost(_HUNG) from None
        if received is None:
            self.close()
            raise ProcessEnded if self._is_ended else ProcessLost(_CRASHED)
        answer, payload = received
        self._is_spent = answer["cpu_s"] > _RETIRED_CPU_S or answer["memory_bytes"] > _RETIRED_MEMORY_BYTES
        if "error" in answer:
            refusal = _REFUSALS.get(answer["error"], _REFUSALS["damaged"])
            raise type(refusal)(refusal.message)
        return answer, payload

    def end(self) -> None:
        """End the process now, from any thread; what it has open is closed then."""
        self._is_ended = True
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End the process, and wait for that; further calls do nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        self._requests.put(None)
        self._process.kill()
        self._process.wait()
        self._exchange.join()
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                pipe.close()
            except OSError:
                # What could not be sent any more.
                pass

    def _exchange_all(self) -> None:
        try:
            while (request := self._requests.get()) is not None:
                self._process.stdin.write(request)
                self._process.stdin.flush()
                self._answers.put(_read_answer(self._process))
        except (OSError, ValueError):
            # The process is gone, or what it says is no answer.
            pass
        self._answers.put(None)


def _read_answer(process: subprocess.Popen[bytes]) -> tuple[dict[str, Any], bytes]:
    line = process.stdout.readline(_MOST_LINE_BYTES)
    if not line.endswith(b"\n"):
        raise ValueError("half an answer")
    answer = json.loads(line)
    if not isinstance(answer, dict) or not all(isinstance(answer.get(name), int) for name in _COUNTS):
        raise ValueError("not an answer")
    size = answer["bytes"]
    if not 0 <= size <= _MOST_PAYLOAD_BYTES:
        raise ValueError(f"an answer of {size} bytes")
    payload = process.stdout.read(size)
    if len(payload) < size:
        raise ValueError("half an answer")
    return answer, payload
