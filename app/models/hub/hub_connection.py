"""One process that speaks with the hub: started, listened to with a time limit, and ended from any thread."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from contextlib import suppress
from typing import Any

from app.limited_process import start_python
from app.models.hub.hub_model import HubError

# Which hub, which token, whose cache, through which proxy, by whose certificates.
_PASSED_ON = ("HF_", "HUGGING", "SSL_CERT_", "REQUESTS_CA_", "CURL_CA_", "XDG_CACHE_", "TRANSFORMERS_OFFLINE")
_PASSED_ON_WHOLE = ("HOME", "USERPROFILE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


class HubConnection:
    """A run of `hub_process` that does one task; a context manager, which ends it.

    Args:
        request: the task, as `hub_process` says.
    """

    def __init__(self, request: dict[str, Any]) -> None:
        # A thread lives as long as this does, and is the one whose end would end the process.
        self._process = start_python("app.models.hub.hub_process", _is_passed_on)
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        threading.Thread(target=_pump, args=(self._process, self._lines), name="hub-lines", daemon=True).start()
        # One that has died at its start is told by the end of its answers.
        with suppress(BrokenPipeError), self._process.stdin as stdin:
            stdin.write(json.dumps(request).encode() + b"\n")

    def __enter__(self) -> HubConnection:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()
        self._process.wait()

    def next(self, timeout_s: float | None) -> dict[str, Any]:
        """What it tells next.

        Args:
            timeout_s: None waits for as long as it takes.

        Raises:
            HubError: it tells an error, tells nothing in time, or was ended.
        """
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            raise HubError(
                "unreachable", f"The hub did not answer within {timeout_s:g} seconds. Check the network, and try again."
            ) from None
        if line is None:
            raise HubError("failed", "The download has ended unexpectedly. Resume it.")
        told = json.loads(line)
        if told["kind"] == "error":
            raise HubError(told["reason"], told["message"])
        return told

    def end(self) -> None:
        """End the process now; what it has written stays."""
        self._process.kill()


def _is_passed_on(name: str) -> bool:
    return name.upper().startswith(_PASSED_ON) or name.upper() in _PASSED_ON_WHOLE


def _pump(process: subprocess.Popen[bytes], lines: queue.SimpleQueue[bytes | None]) -> None:
    for line in process.stdout:
        # A killed process leaves half a line.
        if line.endswith(b"\n"):
            lines.put(line)
    lines.put(None)
    process.stdout.close()
