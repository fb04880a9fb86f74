"""The process that renders a model's chat template: `python -m app.chat.prompt.template_process`.

A template is a program of whoever made the model. It is rendered as transformers does it (`chat_template_utils.py`),
in Jinja's sandbox, which keeps it from files and not from endless loops or all of the memory: the process puts itself
under limits, and `template_rendering.py` watches the clock. Takes one JSON line on stdin (template, variables,
conversations, memory_bytes, cpu_s, characters) and answers with one; further lines are further conversations of the
same template. It imports nothing heavier than jinja2.
"""

import json
import sys
from datetime import datetime
from typing import Any

from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import CallBlock
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from app.limited_process import end_with_starter, limit_this_process


def main() -> None:
    """Render what stdin asks for and write it to stdout; each line has an answer, if the limits allow."""
    end_with_starter()
    request = json.loads(sys.stdin.readline())
    limit_this_process(request["memory_bytes"], request["cpu_s"])
    try:
        template = make_environment().from_string(request["template"])
    except Exception as error:
        _tell({"error": _reason(error)})
        return
    conversations = request["conversations"]
    while True:
        renderings = [
            _render(template, {**request["variables"], "messages": messages}, request["characters"])
            for messages in conversations
        ]
        _tell({"renderings": renderings})
        if not (line := sys.stdin.readline()):
            return
        conversations = json.loads(line)


def _tell(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _render(template: Any, variables: dict[str, Any], characters: int) -> dict[str, str]:
    try:
        text = template.render(**variables)
        if len(text) > characters:
            raise ValueError(f"it writes {len(text):,} characters, and may write {characters:,}")
        text.encode("utf-8")
    except Exception as error:  # a template raises what it likes
        return {"error": _reason(error)}
    return {"text": text}


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "it needs too much memory"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def make_environment() -> ImmutableSandboxedEnvironment:
    """Jinja as chat templates expect it."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlocks, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda format: datetime.now().strftime(format)
    environment.globals["dict"] = _Dict()
    environment.globals["namespace"] = _PlainNamespace
    return environment


class _GenerationBlocks(Extension):
    """`{% generation %}` marks an answer for training; here only what is inside counts."""

    tags = {"generation"}

    def parse(self, parser: Any) -> CallBlock:
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return CallBlock(self.call_method("_keep"), [], [], body).set_lineno(line)

    def _keep(self, caller: Any) -> str:
        return caller()


class _Dict:
    """Python's dict without the rest of its class."""

    def __call__(self, *pairs: Any, **values: Any) -> dict:
        return dict(*pairs, **values)

    def fromkeys(self, *arguments: Any) -> dict:
        return dict.fromkeys(*arguments)


class _PlainNamespace(Namespace):
    """A namespace that cannot reach Python's own attributes."""

    def __init__(*arguments: Any, **values: Any) -> None:
        # So that a template may name one of its values "self".
        namespace, pairs = arguments[0], dict(*arguments[1:], **values)
        for name in pairs:
            _check_name(name)
        Namespace.__init__(namespace, pairs)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace may not have {name!r}")


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    # Jinja's own escapes for HTML.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


if __name__ == "__main__":
    main()
