"""A small server that speaks the hub's protocol on the loopback, with all the faults that networks and hubs have.

It answers what huggingface_hub asks: a model's description and tree, files by HEAD and GET with ranges, large files at
another origin that one is sent to ("localhost" for "127.0.0.1"), etags, gated models, and no xet. Faults are set on
`HubServer.faults` while it runs; what was asked is in `requests`.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from huggingface_hub import constants

TOKEN = "hf_of_somebody_who_was_let_in"
_LARGE_BYTES = 4096
_BLOCK_BYTES = 16 * 1024


@dataclass
class Faults:
    """What goes wrong, each until it is set back; counts go down by themselves."""

    bytes_per_s: float = 0.0  # 0: as fast as can be
    cut_after_bytes: int = 0  # of each body of a large file, as often as `cuts` says
    cuts: int = 0
    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)  # instead of the next bodies
    api_status: int = 0
    is_silent: bool = False  # takes requests and never answers
    ignores_ranges: bool = False
    wrong_bytes: int = 0  # so many bodies of large files arrive damaged


@dataclass
class Repository:
    """A model of the hub."""

    files: Mapping[str, bytes]
    licence: str = "apache-2.0"
    gated: str | bool = False

    @property
    def commit(self) -> str:
        names = [(name, blob_of(content)) for name, content in sorted(self.files.items())]
        return hashlib.sha1(repr(names).encode()).hexdigest()


def is_large(content: bytes) -> bool:
    """Whether a file is in LFS."""
    return len(content) >= _LARGE_BYTES


def blob_of(content: bytes) -> str:
    """The checksum by which the hub knows a file."""
    if is_large(content):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class HubServer:
    """A hub with `repositories` by id, at `address`; close it."""

    def __init__(self, repositories: dict[str, Repository]) -> None:
        self.repositories = repositories
        self.faults = Faults()
        self.requests: list[tuple[str, str, Mapping[str, str]]] = []
        self._server = _ThreadingServer(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        self.port = self._server.server_address[1]
        self.address = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def bodies(self, name: str) -> list[Mapping[str, str]]:
        """The headers of all requests for a file's bytes, by its blob or its name."""
        return [headers for method, path, headers in self.requests if method == "GET" and name in path]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def send_to(server: HubServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process and those that it starts take `server` for the hub, and keep what they download in `home`."""
    for name in [name for name in os.environ if name.startswith("HF_")]:
        monkeypatch.delenv(name)
    for name, value in {"HF_ENDPOINT": server.address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}.items():
        monkeypatch.setenv(name, value)
    # huggingface_hub has read the environment when it was imported.
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


class _ThreadingServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    hub: HubServer

    def handle_error(self, request, client_address) -> None:
        """Clients that are killed are part of the game."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _ThreadingServer

    def log_message(self, format, *args) -> None:
        """Not into the test's output."""

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        hub, path = self.server.hub, unquote(urlsplit(self.path).path)
        hub.requests.append((self.command, self.path, dict(self.headers)))
        while hub.faults.is_silent:
            time.sleep(0.02)
        if path.startswith("/api/models/"):
            self._serve_api(path.removeprefix("/api/models/"))
        elif path.startswith("/large/"):
            contents = (content for one in hub.repositories.values() for content in one.files.values())
            blob = path.removeprefix("/large/")
            self._send_file(next(content for content in contents if blob_of(content) == blob), {})
        else:
            self._serve_file(path)

    def _serve_api(self, path: str) -> None:
        hub = self.server.hub
        if hub.faults.api_status:
            self._refuse(hub.faults.api_status, {})
            return
        model, _, tree = path.partition("/tree/")
        model = model.partition("/revision/")[0]
        repository = hub.repositories.get(model)
        if repository is None:
            self._refuse(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif tree:
            self._send_json([_tree_entry(name, content) for name, content in repository.files.items()])
        else:
            with_sizes = "blobs" in parse_qs(urlsplit(self.path).query)
            siblings = [_sibling(name, content, with_sizes) for name, content in repository.files.items()]
            told = {"id": model, "modelId": model, "sha": repository.commit, "gated": repository.gated}
            self._send_json(told | {"cardData": {"license": repository.licence}, "siblings": siblings, "tags": []})

    def _serve_file(self, path: str) -> None:
        model, _, rest = path.lstrip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        repository = self.server.hub.repositories.get(model)
        if repository is None:
            self._refuse(401, {"X-Error-Code": "RepoNotFound"})
        elif repository.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            status = 403 if "Authorization" in self.headers else 401
            self._refuse(status, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
        elif revision not in ("main", repository.commit):
            self._refuse(404, {"X-Error-Code": "RevisionNotFound"})
        elif name not in repository.files:
            self._refuse(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": repository.commit})
        else:
            content = repository.files[name]
            headers = {"X-Repo-Commit": repository.commit, "ETag": f'"{blob_of(content)}"'}
            if is_large(content):
                large = {"X-Linked-ETag": f'"{blob_of(content)}"', "X-Linked-Size": str(len(content))}
                headers |= large | {"Location": f"http://localhost:{self.server.hub.port}/large/{blob_of(content)}"}
                self._send(302, headers, b"")
            else:
                self._send_file(content, headers)

    def _send_file(self, content: bytes, headers: dict[str, str]) -> None:
        faults, large = self.server.hub.faults, is_large(content)
        if large and faults.statuses:
            self._refuse(*faults.statuses.pop(0))
            return
        start, status = 0, 200
        wanted = self.headers.get("Range")
        if wanted and not faults.ignores_ranges:
            start, status = int(wanted.removeprefix("bytes=").rstrip("-")), 206
            headers = headers | {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        body = content[start:]
        if large and faults.wrong_bytes:
            faults.wrong_bytes -= 1
            body = bytes(len(body))
        self._send(status, headers, body, is_slow=large)

    def _send_json(self, content: object) -> None:
        self._send(200, {"Content-Type": "application/json"}, json.dumps(content).encode())

    def _refuse(self, status: int, headers: dict[str, str]) -> None:
        self._send(status, headers, b"{}")

    def _send(self, status: int, headers: dict[str, str], body: bytes, is_slow: bool = False) -> None:
        faults = self.server.hub.faults
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if is_slow and faults.cuts:
            faults.cuts -= 1
            self.wfile.write(body[: faults.cut_after_bytes])
            self.close_connection = True
            return
        for begin in range(0, len(body), _BLOCK_BYTES):
            block = body[begin : begin + _BLOCK_BYTES]
            self.wfile.write(block)
            if is_slow and faults.bytes_per_s:
                time.sleep(len(block) / faults.bytes_per_s)


def _sibling(name: str, content: bytes, with_size: bool) -> dict:
    entry: dict = {"rfilename": name}
    if with_size:
        entry |= {"size": len(content), "blobId": hashlib.sha1(content).hexdigest()}
        if is_large(content):
            entry["lfs"] = {"sha256": blob_of(content), "size": len(content), "pointerSize": 134}
        else:
            entry["blobId"] = blob_of(content)
    return entry


def _tree_entry(name: str, content: bytes) -> dict:
    entry = {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
    if is_large(content):
        entry["lfs"] = {"oid": blob_of(content), "size": len(content), "pointerSize": 134}
    else:
        entry["oid"] = blob_of(content)
    return entry
