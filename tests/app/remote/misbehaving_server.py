"""A small server that behaves as it is told, in a thread."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def chunk(text: str | None = None, finish_reason: str | None = None, **values: Any) -> bytes:
    """An event of a streamed answer."""
    delta = {} if text is None else {"content": text}
    delta.update({name: values.pop(name) for name in ("reasoning_content",) if name in values})
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    data = {"object": "chat.completion.chunk", "choices": [choice], **values}
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


DONE = b"data: [DONE]\n\n"


class MisbehavingServer:
    """Speaks as much of OpenAI's API as a test wants.

    Attributes:
        models: what /v1/models answers: status and body.
        replies: to questions, in order, the last for all others: status, headers, and pieces of the body: bytes to
            send, or seconds to wait before the next.
        requests: path, headers and body of each request.
        left: set when a client has gone before its answer's end.
    """

    def __init__(self) -> None:
        self.models: tuple[int, Any] = (200, {"data": [{"id": "small", "max_model_len": 2048}]})
        self.replies: list[tuple[int, dict[str, str], list[bytes | float]]] = []
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.left = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None: ...

            def do_GET(self) -> None:
                owner.requests.append((self.path, dict(self.headers), None))
                status, body = owner.models if self.path == "/v1/models" else (404, {})
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", "http://elsewhere.invalid/v1/models?token=1")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                owner.requests.append((self.path, dict(self.headers), body))
                status, headers, pieces = owner.replies.pop(0) if len(owner.replies) > 1 else owner.replies[0]
                self.send_response(status)
                for name, value in ({"Content-Type": "text/event-stream"} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    for piece in pieces:
                        if isinstance(piece, float):
                            time.sleep(piece)
                        else:
                            self.wfile.write(piece)
                            self.wfile.flush()
                except OSError:
                    owner.left.set()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def says(self, *pieces: bytes | float, status: int = 200, **headers: str) -> None:
        """Add a reply; underscores in the names of headers are dashes."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.replies.append((status, named, list(pieces)))

    def fails(self, status: int, body: Any, **headers: str) -> None:
        """Add a reply that is an error."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.says(data, status=status, Content_Type="application/json", **headers)

    @property
    def questions(self) -> list[dict[str, Any]]:
        """The bodies of what was asked."""
        return [body for path, _, body in self.requests if path == "/v1/chat/completions"]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
