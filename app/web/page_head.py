"""Puts the page's own head into the HTML that Gradio serves.

Gradio takes a `head` as well, but hands it to its script, which adds it when it runs: our style sheets and scripts
would arrive after a second, and everything would be drawn twice. In the HTML itself the browser fetches them at once,
and draws the page's frame while Gradio's bundle is still on its way.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PAGE_PATH = "/"
_HEAD_END = b"</head>"
_BODY_START = re.compile(rb"<body[^>]*>")
_IMPORT = re.compile(r"""^(?:import|export)\s.*?from\s+"(\.{1,2}/[\w./-]+\.js)";""", re.MULTILINE | re.DOTALL)


class PageHead:
    """ASGI middleware that adds to the head and to the beginning of the body of the page, and to nothing else.

    Args:
        app: what serves the page.
        head: HTML for the end of the head.
        body: HTML for the beginning of the body.
    """

    def __init__(self, app: ASGIApp, head: str, body: str = "") -> None:
        self._app = app
        self._head = head.encode()
        self._body = body.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != _PAGE_PATH or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        start: Message = {}
        parts: list[bytes] = []

        async def send_with_head(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            if message["type"] != "http.response.body":
                await send(message)
                return
            parts.append(message.get("body", b""))
            if message.get("more_body"):
                return
            page = b"".join(parts)
            headers = MutableHeaders(scope=start)
            if headers.get("content-type", "").startswith("text/html"):
                page = self._with_additions(page)
                headers["content-length"] = str(len(page))
            await send(start)
            await send({"type": "http.response.body", "body": page})

        await self._app(scope, receive, send_with_head)

    def _with_additions(self, page: bytes) -> bytes:
        page = page.replace(_HEAD_END, self._head + b"\n" + _HEAD_END, 1)
        return _BODY_START.sub(lambda found: found[0] + self._body, page, count=1)


def imported_scripts(folder: Path, entry: str) -> list[str]:
    """The modules that `entry` imports, directly or not, nearest first, as paths from the folder.

    A browser learns of them only level by level; told beforehand, it fetches them all at once.
    """
    names = [entry]
    for name in names:
        found = _IMPORT.findall((folder / name).read_text(encoding="utf-8"))
        paths = (posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) for path in found)
        names += [path for path in dict.fromkeys(paths) if path not in names]
    return names[1:]
