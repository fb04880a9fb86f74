"""Serves the files of the page, ours and Gradio's, from memory.

A page is 140 files, and each costs the usual routes three to five milliseconds of the processor that the browser needs
as well: a thread, a stat, a compression. Here it is a look into a table. Only names that were found in the folders as
the server started are in it; everything else, and everybody who is not on this machine, for whom files are compressed,
is served by the routes behind.
"""

from __future__ import annotations

import ipaddress
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

# Gradio's files have a hash of their content in their names; a few that have none are not in its folder of assets.
_FOREVER = "public, max-age=31536000, immutable"
_ASK_AGAIN = "no-cache"


@dataclass
class _File:
    """A file as it was when it was last read."""

    path: Path
    media_type: str
    lifetime: str
    version: tuple[int, int] = (0, 0)
    content: bytes = b""

    def read(self) -> tuple[bytes, str]:
        """Its content and entity tag; read again if it has changed.

        Raises:
            OSError: if it is gone.
        """
        status = self.path.stat()
        version = (status.st_mtime_ns, status.st_size)
        if version != self.version:
            self.content = self.path.read_bytes()
            self.version = version
        return self.content, f'"{version[0]:x}-{version[1]:x}"'


class PageFiles:
    """ASGI middleware that answers requests of this machine for the files of some folders.

    Args:
        app: answers everything else.
        folders: by the address below which their files are, without a slash at its end.
        unchanging: of these addresses, those whose files are never another under the same name.
    """

    def __init__(self, app: ASGIApp, folders: Mapping[str, Path], unchanging: frozenset[str] = frozenset()) -> None:
        self._app = app
        self._files: dict[str, _File] = {}
        for address, folder in folders.items():
            lifetime = _FOREVER if address in unchanging else _ASK_AGAIN
            for path in folder.rglob("*"):
                if not path.is_file():
                    continue
                media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
                self._files[f"{address}/{path.relative_to(folder).as_posix()}"] = _File(path, media_type, lifetime)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        file = self._files.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "GET" else None
        headers = Headers(scope=scope) if file else None
        if file is None or headers is None or "range" in headers or not _is_on_this_machine(scope):
            await self._app(scope, receive, send)
            return
        try:
            content, tag = file.read()
        except OSError:
            await self._app(scope, receive, send)
            return
        is_known = headers.get("if-none-match") == tag
        fields = {"content-type": file.media_type, "cache-control": file.lifetime, "etag": tag}
        if not is_known:
            fields["content-length"] = str(len(content))
        encoded = [(name.encode(), value.encode()) for name, value in fields.items()]
        await send({"type": "http.response.start", "status": 304 if is_known else 200, "headers": encoded})
        await send({"type": "http.response.body", "body": b"" if is_known else content})


def _is_on_this_machine(scope: Scope) -> bool:
    client = scope.get("client")
    if not client:
        return False
    try:
        return ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False
