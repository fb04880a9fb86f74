"""The page's files from memory, and the page's own head."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("starlette")

from app.web.page_files import PageFiles
from app.web.page_head import PageHead, imported_scripts

HERE = ("127.0.0.1", 50_000)


async def _behind(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
    await send({"type": "http.response.body", "body": b"<head></head>", "more_body": True})
    await send({"type": "http.response.body", "body": b"<body style='a'>Gradio</body>"})


def get(app, path, client=HERE, **headers):
    """(status, headers, body) of a request."""
    sent = []

    async def send(message):
        sent.append(message)

    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "path": path, "headers": fields, "client": client}
    asyncio.run(app(scope, None, send))
    start, *parts = sent
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], found, b"".join(part["body"] for part in parts)


def test_files_come_from_memory_and_are_read_again_when_they_change(tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.css").write_text("a{}")
    (tmp_path / "secret").write_text("no")
    app = PageFiles(_behind, {"/page": tmp_path / "files"})
    status, headers, body = get(app, "/page/a.css")
    assert (status, body, headers["content-type"]) == (200, b"a{}", "text/css")
    assert headers["cache-control"] == "no-cache"
    assert get(app, "/page/a.css", if_none_match=headers["etag"])[::2] == (304, b"")
    (tmp_path / "files" / "a.css").write_text("a{color:red}")
    assert get(app, "/page/a.css", if_none_match=headers["etag"])[::2] == (200, b"a{color:red}")
    # What is not in the table, and whoever is not on this machine, is for the routes behind.
    for path, client in (("/page/../secret", HERE), ("/page/b.css", HERE), ("/page/a.css", ("10.0.0.9", 1))):
        assert b"Gradio" in get(app, path, client)[2]
    (tmp_path / "files" / "a.css").unlink()
    assert b"Gradio" in get(app, "/page/a.css")[2]


def test_files_that_never_change_are_kept_by_the_browser(tmp_path):
    (tmp_path / "a-1234.js").write_text("1")
    app = PageFiles(_behind, {"/assets": tmp_path}, unchanging=frozenset({"/assets"}))
    assert "immutable" in get(app, "/assets/a-1234.js")[1]["cache-control"]


def test_the_head_and_the_frame_stand_in_the_page_itself_and_nowhere_else():
    app = PageHead(_behind, "<link>", "<p>Frame</p>")
    _, headers, body = get(app, "/")
    assert body == b"<head><link>\n</head><body style='a'><p>Frame</p>Gradio</body>"
    assert headers["content-length"] == str(len(body))
    assert b"<link>" not in get(app, "/config")[2]


def test_scripts_are_found_through_those_that_import_them(tmp_path):
    (tmp_path / "main.js").write_text('import { a,\n  b } from "./one.js";\nimport c from "./two.js";\n')
    (tmp_path / "one.js").write_text('export { d } from "./part/three.js";\nimport { e } from "./two.js";\n')
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "three.js").write_text('import { f } from "../two.js";\nimport { g } from "./four.js";\n')
    for name in ("two.js", "part/four.js"):
        (tmp_path / name).write_text('// import x from "./no.js";\n')
    assert imported_scripts(tmp_path, "main.js") == ["one.js", "two.js", "part/three.js", "part/four.js"]
