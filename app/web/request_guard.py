"""Refuse requests that a foreign web page could have caused, and tell the browser what our page may load.

A server on this machine is within reach of every page that its user opens: through a name that resolves to 127.0.0.1
(DNS rebinding), or through a plain form post. So the Host header must name this server, an Origin header, where there
is one, must be this server's, and the page itself may load nothing from elsewhere: an answer with a markdown picture
in it must not make the browser fetch an address that tells what was in the document. And of what Gradio serves, only
what the page asks for is open: the rest is for other kinds of apps, and some of it reads files or runs code.
"""

import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Gradio writes inline scripts and styles into its page and compiles the templates of its HTML components in the
# browser; hence 'unsafe-inline' and 'unsafe-eval'. Text is kept from leaving by nothing but 'self' being reachable.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "media-src 'self' data: blob:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# Routes of Gradio that make the server fetch an address which the caller chooses; the page has no use for them.
_FETCHING_ROUTES = ("/gradio_api/proxy=", "/gradio_api/file=http:", "/gradio_api/file=https:")
# All that the page and its scripts ask for: seen in a browser that adds documents, asks, stops, reloads. With a slash
# at its end, all that lies below.
_SERVED_ROUTES = (
    "/",
    "/favicon.ico",
    "/robots.txt",
    "/config",
    "/theme.css",
    "/assets/",
    "/static/",
    "/quest/",
    "/streams/",
    "/telemetry/",
    "/healthz",
    "/sign-in",
    "/library",
    "/library/documents",
    "/conversations/",
    "/documents/",
    "/models",
    "/models/",
    "/v1",
    "/v1/",
    "/gradio_api/app_id",
    "/gradio_api/call/",
    "/gradio_api/cancel",
    "/gradio_api/queue/data",
    "/gradio_api/queue/join",
    "/gradio_api/reset",
    "/gradio_api/run/",
)
# The one that takes files, and counts their bytes itself.
_UPLOAD_PATH = "/library/documents"
_API_FOLDER = "/v1/"
# Of all other requests, which are parsed as a whole, and by the thread that serves everybody.
_MAX_BYTES = 8 << 20
_SERVED_PATHS = frozenset(_SERVED_ROUTES)
_SERVED_FOLDERS = tuple(route for route in _SERVED_ROUTES if route != "/" and route.endswith("/"))
_ANY_ADDRESS = ("0.0.0.0", "::")


class RequestGuard:
    """ASGI middleware that checks Host, Origin and route, and adds the security headers.

    Written against ASGI itself because streams must pass through it unbuffered.

    Args:
        app: what is guarded.
        allowed_hosts: names and addresses, without ports, by which this server may be called.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Iterable[str]) -> None:
        self._app = app
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope["path"], headers)
        if refusal is None:
            await self._app(scope, receive, _with_security_headers(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await _response(scope["path"], *refusal)(scope, receive, send)

    def _refusal(self, path: str, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if host_name(host) not in self._allowed_hosts:
            return 400, "This server is not known by that name. Open the address that it printed when it started."
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return 403, "Another web page tried to use this server."
        if path.startswith(_FETCHING_ROUTES):
            return 403, "This server fetches nothing for others."
        if path not in _SERVED_PATHS and not path.startswith(_SERVED_FOLDERS):
            return 404, "Nothing is served here."
        is_long = "transfer-encoding" in headers or int(headers.get("content-length", 0)) > _MAX_BYTES
        if is_long and path != _UPLOAD_PATH:
            return 413, f"A request may have at most {_MAX_BYTES >> 20} MiB, and must say how many."
        return None


def _response(path: str, status: int, sentence: str) -> Response:
    """A refusal; below /v1 in the shape that OpenAI's clients read."""
    if not path.startswith(_API_FOLDER):
        return PlainTextResponse(sentence, status, SECURITY_HEADERS)
    error = {"message": sentence, "type": "invalid_request_error", "param": None, "code": None}
    return JSONResponse({"error": error}, status, SECURITY_HEADERS)


def host_name(host: str) -> str:
    """The name in a Host header, in lower case, without port and without the brackets of an IPv6 address."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def allowed_hosts(bind_host: str) -> set[str]:
    """By which names and addresses a server that listens on `bind_host` may be called.

    A server on every address of the machine may be called by any of them, and by the machine's names.
    """
    hosts = {"localhost", "127.0.0.1", "::1", bind_host.strip("[]")}
    if bind_host.strip("[]") not in _ANY_ADDRESS:
        return hosts
    name = socket.gethostname().lower()
    return hosts | {name, f"{name.partition('.')[0]}.local", socket.getfqdn().lower()} | _own_addresses()


def _own_addresses() -> set[str]:
    import psutil

    addresses = set()
    for entries in psutil.net_if_addrs().values():
        for entry in entries:
            # A link-local IPv6 address carries its interface: fe80::1%eth0. Entries of other families are no addresses.
            address = entry.address.partition("%")[0]
            try:
                addresses.add(str(ipaddress.ip_address(address)))
            except ValueError:
                continue
    return addresses


def _with_security_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers[name] = value
        await send(message)

    return send_with_headers
