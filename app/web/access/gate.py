"""Lets nobody through who has not given the server's key: no page, no file, no stream, no program's request.

Programs send the key itself as a bearer token. A browser shows the sign-in page wherever it goes first, and keeps a
cookie that no script can read and that is not the key. A key in an address is none: addresses are kept in histories and
logs. Wrong cookies are not counted as tries: they are not chosen by people, and one of another key is no guess.
"""

from __future__ import annotations

from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request, cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.web.access.key import AccessKey
from app.web.access.sign_in_page import KEY_FIELD, NEXT_FIELD, SIGN_IN_PATH, own_address, sign_in_page
from app.web.access.tries import Tries

_API_PATH = "/v1"
_MOST_FORM_BYTES = 8192
# As long as browsers keep one at most.
_COOKIE_S = 400 * 24 * 3600
_NO_STORE = {"Cache-Control": "no-store"}
_ASK = "This server asks for its key: `Authorization: Bearer KEY`, or sign in with a browser."
_WRONG = "That is not the key of this server."


class KeyGate:
    """ASGI middleware that asks for the key.

    Written against ASGI itself because streams must pass through it unbuffered.

    Args:
        app: what is behind it.
        access: the key.
        port: of the server; browsers keep one set of cookies for all ports of a machine.
        tries: for tests.
    """

    def __init__(self, app: ASGIApp, access: AccessKey, port: int, tries: Tries | None = None) -> None:
        self._app = app
        self._access = access
        self._cookie_name = f"quest-chat-{port}"
        self._tries = tries or Tries()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        has_cookie = self._has_cookie(headers)
        if scope["type"] == "http" and scope["path"] == SIGN_IN_PATH:
            response = await self._sign_in(Request(scope, receive), has_cookie)
        else:
            response = None if has_cookie else self._refusal(scope, headers)
        if response is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await response(scope, receive, send)

    def _has_cookie(self, headers: Headers) -> bool:
        cookies = cookie_parser(headers.get("cookie", ""))
        return self._access.is_cookie(cookies.get(self._cookie_name, ""))

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """What to answer to a request without a cookie; None if it has the key."""
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            return self._ask(scope, headers)
        wait_s, is_key = self._try(scope, key.strip())
        if is_key:
            return None
        return _too_many(scope["path"], wait_s) if wait_s else _unauthorized(scope["path"], _WRONG)

    def _ask(self, scope: Scope, headers: Headers) -> Response:
        is_navigation = scope.get("method") == "GET" and "text/html" in headers.get("accept", "")
        if not is_navigation or _is_api(scope["path"]):
            return _unauthorized(scope["path"], _ASK)
        query = scope.get("query_string", b"").decode("latin-1")
        return _page(own_address(f"{scope['path']}?{query}" if query else scope["path"]), status=401)

    def _try(self, scope: Scope, key: str) -> tuple[int, bool]:
        """For how long no key is looked at, and whether this is the one."""
        address = (scope.get("client") or ("",))[0]
        wait_s = self._tries.wait_s(address)
        if wait_s:
            return wait_s, False
        is_key = self._access.is_key(key)
        if is_key:
            self._tries.add_right(address)
        else:
            self._tries.add_wrong(address)
        return 0, is_key

    async def _sign_in(self, request: Request, has_cookie: bool) -> Response:
        if request.method != "POST":
            return RedirectResponse("/", 303, _NO_STORE) if has_cookie else _page("/")
        try:
            form = await _form(request)
        except (ClientDisconnect, ValueError):
            return PlainTextResponse("This is no form of the sign-in page.", 400, _NO_STORE)
        next_address = own_address(form.get(NEXT_FIELD, "/"))
        # Copied from a terminal, it may have a space or a line break at its ends.
        key = form.get(KEY_FIELD, "").strip()
        if not key:
            return _page(next_address, "Enter the key.", 401)
        wait_s, is_key = self._try(request.scope, key)
        if wait_s:
            return _page(next_address, _wait(wait_s), 429, {"Retry-After": str(wait_s)})
        if not is_key:
            return _page(next_address, _WRONG, 401)
        response = RedirectResponse(next_address, 303, _NO_STORE)
        response.set_cookie(
            self._cookie_name,
            self._access.cookie(),
            max_age=_COOKIE_S,
            httponly=True,
            samesite="strict",
            # Behind a proxy that speaks https only the browser knows of it.
            secure=request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://"),
        )
        return response


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form.

    Raises:
        ValueError: it is longer than that of the sign-in page can be, or none.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MOST_FORM_BYTES:
            raise ValueError("the form is too long")
    fields = parse_qs(body.decode("utf-8"), max_num_fields=8)
    return {name: values[0] for name, values in fields.items()}


def _is_api(path: str) -> bool:
    return path == _API_PATH or path.startswith(_API_PATH + "/")


def _wait(wait_s: int) -> str:
    return f"Too many wrong keys. Try again in {wait_s} second{'s' * (wait_s != 1)}."


def _too_many(path: str, wait_s: int) -> Response:
    return _refused(path, _wait(wait_s), 429, "rate_limit_exceeded", {"Retry-After": str(wait_s)})


def _unauthorized(path: str, sentence: str) -> Response:
    return _refused(path, sentence, 401, "invalid_api_key", {"WWW-Authenticate": "Bearer"})


def _refused(path: str, sentence: str, status: int, code: str, headers: dict[str, str]) -> Response:
    headers = headers | _NO_STORE
    if not _is_api(path):
        return PlainTextResponse(sentence, status, headers)
    # As OpenAI's clients expect it.
    error = {"message": sentence, "type": "invalid_request_error", "param": None, "code": code}
    return JSONResponse({"error": error}, status, headers)


def _page(next_address: str, error: str = "", status: int = 200, headers: dict[str, str] | None = None) -> Response:
    asking = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return HTMLResponse(sign_in_page(next_address, error), status, asking | _NO_STORE | (headers or {}))
