"""The route of an answer's sources: what it tells, that nothing is cached, and 404 where there is nothing."""

from __future__ import annotations

import pytest

from app.errors import UserFacingError
from app.web.server import _add_refusals
from app.web.source_routes import add_source_routes

fastapi = pytest.importorskip("fastapi")
testclient = pytest.importorskip("fastapi.testclient")


class ScriptedAssistant:
    def sources(self, conversation_id: str, turn_id: str) -> dict:
        if turn_id != "7":
            raise UserFacingError("There is no such answer in this conversation. Reload the page.")
        return {"turn_id": turn_id, "running": True}


def test_sources():
    app = fastapi.FastAPI()
    _add_refusals(app)
    add_source_routes(app, ScriptedAssistant())
    client = testclient.TestClient(app)
    told = client.get("/conversations/c0ffee/turns/7/sources")
    assert told.json() == {"turn_id": "7", "running": True} and told.headers["Cache-Control"] == "no-store"
    refused = client.get("/conversations/c0ffee/turns/8/sources")
    assert refused.status_code == 404 and "no such answer" in refused.json()["error"]
