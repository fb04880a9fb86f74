"""Render a model's chat template in a process of its own, which is killed when it takes too long.

Knows nothing of what a template should contain; see `template_process.py` for how it is rendered.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
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
    request = {
        "template": template,
        "variables": variables,
        "conversations": list(conversations),
        "memory_bytes": limits.memory_bytes,
        "cpu_s": limits.cpu_s,
        "characters": limits.characters,
    }
    with start_python("app.chat.prompt.template_process") as process:
        try:
            output, _ = process.communicate(json.dumps(request, default=str).encode() + b"\n", limits.wall_clock_s)
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
    if "error" in answer:
        raise TemplateFault(answer["error"])
    return [
        rendering["text"] if "text" in rendering else TemplateFault(rendering["error"])
        for rendering in answer["renderings"]
    ]
