"""A server that listens: every route asks for the key, and whoever has it or its cookie gets on."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Iterator

import pytest

pytest.importorskip("gradio")
pytest.importorskip("httpx")

from starlette.routing import Mount
from starlette.testclient import TestClient

from app.settings import AppSettings
from app.web import request_guard
from app.web.access.gate import KeyGate
from app.web.access.tries import TRIES_OF_AN_ADDRESS
from app.web.server import create_app
from tests.app.web.test_server import CONVERSATION, ScriptedAssistant, small_page

ORIGIN = "http://127.0.0.1:7860"
NAVIGATION = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def served(settings: AppSettings):
    with pytest.MonkeyPatch.context() as environment:
        # The server sets it for Gradio; the context puts it back.
        environment.setenv("GRADIO_TEMP_DIR", "")
        return create_app(settings, ScriptedAssistant(), small_page)


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> AppSettings:
    return AppSettings(data_dir=tmp_path_factory.mktemp("data"), host="0.0.0.0")


@pytest.fixture(scope="module")
def app(settings):
    return served(settings)


@pytest.fixture
def client(app) -> TestClient:
    """A browser that has not signed in yet. What it tried wrongly is forgotten."""
    app.middleware_stack = None
    return TestClient(app, base_url=ORIGIN, follow_redirects=False)


def routes_of(routes, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Method and path of every route, those of mounted applications included."""
    for route in routes:
        if hasattr(route, "effective_candidates"):
            # FastAPI's wrapper of a router that was included.
            yield from routes_of(route.effective_candidates(), prefix)
            continue
        path = prefix + route.path
        if isinstance(route, Mount):
            yield "GET", f"{path}/x"
            yield from routes_of(route.routes or [], path)
        else:
            for method in getattr(route, "methods", None) or ():
                yield method, path


def test_every_route_asks_for_the_key(app, client):
    routes = {(method, path.replace("{", "").replace("}", "")) for method, path in routes_of(app.routes)}
    paths = {path for _, path in routes}
    assert {"/healthz", "/library", "/library/documents", "/streams/connection_id"} <= paths
    assert any("queue/join" in path for path in paths), "Gradio's routes are not among them"
    open_routes = [
        (method, path, answer.status_code)
        for method, path in sorted(routes)
        # 403 and 404: what the guard before it serves to nobody.
        if (answer := client.request(method, path)).status_code not in (401, 403, 404)
    ]
    assert open_routes == []


@pytest.mark.parametrize("route", [route for route in request_guard._SERVED_ROUTES if route != "/sign-in"])
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS", "DELETE"])
def test_what_the_guard_serves_asks_for_the_key(client, route, method):
    for path in (route, f"{route}x", f"{route}?key=x"):
        answer = client.request(method, path)
        if answer.status_code != 404:
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["cache-control"] == "no-store"


def test_variants_of_the_sign_in_address_are_not_open(client):
    for path in ("/sign-in/", "/sign-in/../library", "/sign-in%2f..%2flibrary", "//sign-in", "/SIGN-IN", "/sign-in;x"):
        assert client.get(path).status_code in (401, 404)


def test_the_key_opens_as_a_bearer_token_and_nowhere_else(app, client):
    key = app.state.access.made
    assert client.get("/healthz", headers={"Authorization": f"Bearer {key}"}).json()["model"] == "embedded"
    assert client.get("/healthz", headers={"Authorization": f"bearer  {key} "}).status_code == 200
    for headers in ({"Authorization": key}, {"Authorization": f"Basic {key}"}, {"X-Api-Key": key}, {"Cookie": key}):
        assert client.get("/healthz", headers=headers).status_code == 401
    for name in ("key", "api_key", "token", "access_token"):
        assert client.get("/healthz", params={name: key}).status_code == 401


def test_programs_are_refused_in_the_shape_that_they_know(app):
    async def never(scope, receive, send):
        raise AssertionError("somebody without a key was let through")

    client = TestClient(KeyGate(never, app.state.access, 7860), base_url=ORIGIN)
    wrong = {"Authorization": "Bearer sk-wrong"}
    refusals = [(401, "invalid_api_key", {}), *[(401, "invalid_api_key", wrong)] * TRIES_OF_AN_ADDRESS]
    for status, code, headers in [*refusals, (429, "rate_limit_exceeded", wrong)]:
        # A browser that goes there is a program as well.
        answer = client.get("/v1/models", headers=NAVIGATION | headers)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (status, code, None)
        assert error["type"] == "invalid_request_error" and error["message"]
    assert client.get("/v10", headers=wrong).headers["content-type"].startswith("text/plain")


def test_a_browser_signs_in_where_it_wanted_to_go(app, client):
    asked = client.get("/?conversation=abc&x=%22%3E", headers=NAVIGATION)
    assert asked.status_code == 401
    assert 'value="/?conversation=abc&amp;x=%22%3E"' in asked.text
    assert "quest" not in asked.text.lower().replace("quest chat", ""), "the page is shown with it"
    form = {"key": f" {app.state.access.made}\n", "next": "/?conversation=abc&x=%22%3E"}
    answer = client.post("/sign-in", data=form, headers={"Origin": ORIGIN})
    assert (answer.status_code, answer.headers["location"]) == (303, "/?conversation=abc&x=%22%3E")
    flags = {flag.strip().lower() for flag in answer.headers["set-cookie"].split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= flags and "secure" not in flags
    assert app.state.access.made not in answer.headers["set-cookie"]
    assert client.get("/", headers=NAVIGATION).status_code == 200
    assert client.get("/healthz").status_code == 200
    assert client.get("/sign-in").headers["location"] == "/"
    assert client.get("/telemetry/other/events").status_code == 404


def test_behind_https_the_cookie_is_secure(app, client):
    form = {"key": app.state.access.made}
    secure = client.post("/sign-in", data=form, headers={"Origin": "https://127.0.0.1:7860"})
    assert "secure" in secure.headers["set-cookie"].lower()


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example/",
        "\\\\evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        "javascript:alert(1)",
        "evil.example",
        "",
        "/sign-in",
        "/a\r\nSet-Cookie: x=y",
        "/é",
        "//[",
    ],
)
def test_signing_in_leads_nowhere_else(app, client, elsewhere):
    answer = client.post("/sign-in", data={"key": app.state.access.made, "next": elsewhere})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_a_wrong_key_is_said_and_gives_no_cookie(client):
    for key, words in (("wrong", "not the key"), ("", "Enter the key"), ("<b>", "not the key")):
        answer = client.post("/sign-in", data={"key": key, "next": "/?a=<b>"})
        assert answer.status_code == 401
        assert 'role="alert"' in answer.text and words in answer.text and "<b>" not in answer.text
        assert "set-cookie" not in answer.headers


def test_forms_that_are_none_are_refused(client):
    for content in (b"\xff\xfe=\xff", b"key=" + b"x" * 10_000, "&".join(f"k{i}=1" for i in range(50)).encode()):
        assert client.post("/sign-in", content=content).status_code == 400
    assert client.request("DELETE", "/sign-in").status_code == 200


def test_another_web_page_cannot_sign_in(app, client):
    form = {"key": app.state.access.made}
    assert client.post("/sign-in", data=form, headers={"Origin": "http://evil.example"}).status_code == 403


def test_tries_are_limited_and_a_cookie_is_not_held_up(app, client):
    key = app.state.access.made
    signed_in = TestClient(app, base_url=ORIGIN, follow_redirects=False)
    signed_in.post("/sign-in", data={"key": key})
    for number in range(TRIES_OF_AN_ADDRESS):
        answer = client.get("/healthz", headers={"Authorization": f"Bearer wrong-{number}"})
        assert answer.status_code == 401
    for answer in (
        client.get("/healthz", headers={"Authorization": f"Bearer {key}"}),
        client.post("/sign-in", data={"key": key}),
        client.post("/sign-in", data={"key": "wrong"}),
    ):
        assert answer.status_code == 429
        assert 0 < int(answer.headers["retry-after"]) <= 60
        assert "set-cookie" not in answer.headers
    # To ask without any key is no try, and those who are in stay in.
    assert client.get("/healthz").status_code == 401
    assert signed_in.get("/healthz").status_code == 200


def test_no_cookie_but_its_own_opens(app, client):
    right = app.state.access.cookie()
    for name, value in (("quest-chat-7860", right[:-1]), ("quest-chat-7860", ""), ("quest-chat", right)):
        assert client.get("/healthz", headers={"Cookie": f"{name}={value}"}).status_code == 401
    assert client.get("/healthz", headers={"Cookie": f"a=b; quest-chat-7860={right}"}).status_code == 200


def test_the_cookie_survives_a_restart_and_ends_with_the_key(app, client, settings):
    client.post("/sign-in", data={"key": app.state.access.made})
    again = served(settings)
    assert again.state.access.made == ""
    assert TestClient(again, base_url=ORIGIN, cookies=client.cookies).get("/healthz").status_code == 200
    fields = {"data_dir": settings.data_dir, "host": "0.0.0.0", "new_api_key": True}
    another = TestClient(served(AppSettings(**fields)), base_url=ORIGIN, cookies=client.cookies)
    assert another.get("/healthz").status_code == 401


def test_keys_are_compared_in_constant_time(app, client, monkeypatch):
    compared = []
    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or compare(a, b))
    client.get("/healthz", headers={"Authorization": "Bearer wrong"})
    # The cookie that is not there, and the key: hashes of one length, whatever was sent.
    assert [(len(a), len(b)) for a, b in compared] == [(32, 32), (32, 32)]


def test_websockets_are_closed_before_they_are_accepted(app):
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "websocket", "path": "/", "headers": [(b"host", b"127.0.0.1")]}
    asyncio.run(app(scope, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_on_the_loopback_nothing_is_asked(tmp_path):
    app = served(AppSettings(data_dir=tmp_path))
    assert app.state.access is None
    client = TestClient(app, base_url=ORIGIN, follow_redirects=False)
    assert client.get("/healthz").status_code == 200
    assert client.get("/sign-in").status_code == 404
    assert client.get("/library", params={"conversation": CONVERSATION}).status_code == 200


def test_on_the_loopback_a_key_that_was_set_is_asked(tmp_path):
    app = served(AppSettings(data_dir=tmp_path, api_key="a-key-of-my-own-choice"))
    client = TestClient(app, base_url=ORIGIN, follow_redirects=False)
    assert client.get("/healthz").status_code == 401
    assert client.get("/healthz", headers={"Authorization": "Bearer a-key-of-my-own-choice"}).status_code == 200
