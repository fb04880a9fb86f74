"""Render a model's chat template in a process of its own, which is killed when it takes too long.

Knows nothing of what a template should contain; see `template_process.py` for how it is rendered.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

from app.limited_process import start_python

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class RenderLimits:
    """What rendering may cost. Real templates take some milliseconds and write some hundred characters.

    Attributes:
        memory_bytes: address space of the process (Linux; elsewhere it may have no effect).
        wall_clock_s: seconds until the process is killed, its start included.
        cpu_s: seconds of CPU time.
        characters: length of one rendering.
    """

    memory_bytes: int = 512 * MEBIBYTE
    wall_clock_s: float = 20.0
    cpu_s: int = 10
    characters: int = 100_000


class TemplateFault(ValueError):
    """A template cannot be parsed, or cost more than it may; the message is the reason without its subject."""


def render_template(
    template: str, variables: dict[str, Any], conversations: Sequence[Any], limits: RenderLimits | None = None
) -> list[str | TemplateFault]:
    """The texts of conversations; in place of one that cannot be rendered, why.

    Args:
        template: Jinja.
        variables: what it is told besides the messages; values that JSON has.
        conversations: lists of messages with "role" and "content".
        limits: the defaults if None.

    Raises:
        TemplateFault: if it renders nothing at all.
    """
    limits = limits or RenderLimits()
    request = _request(template, variables, conversations, limits)
    with start_python("app.chat.prompt.template_process") as process:
        try:
            output, _ = process.communicate(request, limits.wall_clock_s)
        except subprocess.TimeoutExpired as error:
            raise TemplateFault(f"it took longer than {limits.wall_clock_s:g} seconds and was stopped") from error
        finally:
            process.kill()
    try:
        answer = json.loads(output)
    except ValueError as error:
        if find_spec("jinja2") is None:
            raise ModuleNotFoundError("No module named 'jinja2'", name="jinja2") from error
        raise TemplateFault(
            f"it took too much time or memory, or crashed what renders it (status {process.returncode})"
        ) from error
    return _renderings(answer)


def _request(
    template: str, variables: dict[str, Any], conversations: Sequence[Any], limits: RenderLimits
) -> bytes:
    request = {
        "template": template,
        "variables": variables,
        "conversations": list(conversations),
        "memory_bytes": limits.memory_bytes,
        "cpu_s": limits.cpu_s,
        "characters": limits.characters,
    }
    return json.dumps(request, default=str).encode() + b"\n"


def _renderings(answer: dict[str, Any]) -> list[str | TemplateFault]:
    if "error" in answer:
        raise TemplateFault(answer["error"])
    return [
        rendering["text"] if "text" in rendering else TemplateFault(rendering["error"])
        for rendering in answer["renderings"]
    ]


class TemplateRenderer:
    """Renders one template again and again, in one process; safe to call from any thread, one call at a time.

    The process is started with the first call, which takes some tenths of a second, and anew where it was stopped.

    Args:
        template, variables: see `render_template`.
        limits: of each process and rendering; a long dialogue's text is long.
    """

    def __init__(self, template: str, variables: dict[str, Any], limits: RenderLimits | None = None) -> None:
        self._template = template
        self._variables = variables
        self._limits = limits or replace(RenderLimits(), characters=64 * MEBIBYTE)
        self._lock = threading.Lock()
        # The process ends with the thread that has started it.
        self._thread = ThreadPoolExecutor(1, "template-renderer")
        self._process: subprocess.Popen[bytes] | None = None

    def render(self, messages: Sequence[dict[str, Any]]) -> str:
        """The text of one dialogue.

        Raises:
            TemplateFault: it cannot be rendered, or took too much time or memory.
        """
        with self._lock:
            was_there = self._process is not None
            line = self._line(messages)
            if line == b"" and was_there:
                # It has used up the time that it may take altogether, say.
                line = self._line(messages)
        try:
            answer = json.loads(line or b"")
        except ValueError:
            raise TemplateFault("it took too much time or memory, or crashed what renders it") from None
        (rendering,) = _renderings(answer)
        if isinstance(rendering, TemplateFault):
            raise rendering
        return rendering

    def _line(self, messages: Sequence[dict[str, Any]]) -> bytes | None:
        """What the process answers; nothing if it has ended, None if it was stopped because it took too long."""
        told = self._thread.submit(self._exchange, list(messages))
        try:
            line = told.result(self._limits.wall_clock_s)
        except FutureTimeoutError:
            self._stop()
            return None
        if not line.endswith(b"\n"):
            self._stop()
            return b""
        return line

    def _exchange(self, messages: list[dict[str, Any]]) -> bytes:
        if self._process is None:
            self._process = start_python("app.chat.prompt.template_process")
            request = _request(self._template, self._variables, [messages], self._limits)
        else:
            request = json.dumps([messages]).encode() + b"\n"
        process = self._process
        try:
            process.stdin.write(request)
            process.stdin.flush()
            return process.stdout.readline()
        except (OSError, ValueError):
            return b""

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            # What it was told and has not read cannot be written any more.
            with suppress(OSError), process:
                pass

    def close(self) -> None:
        """End the process, also while it renders; a later call starts another."""
        process = self._process
        if process is not None:
            process.kill()
