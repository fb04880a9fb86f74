"""The routes of the document viewer over real HTTP, with a real library and real render processes."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from app.errors import UserFacingError
from app.library.library import Library
from app.store.database import Database
from app.viewer.document_viewer import DocumentViewer
from app.viewer.errors import RenderBusy
from app.viewer.render_pool import RenderPool

fastapi = pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn")

SAMPLE_BOOK = Path(__file__).parents[3] / "assets" / "books" / "the-happy-prince.pdf"
UNKNOWN = "0" * 32


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Iterator[Library]:
    library = Library(tmp_path_factory.mktemp("data"), Database.temporary())
    yield library
    library.close()


@pytest.fixture(scope="module")
def viewer(library) -> Iterator[DocumentViewer]:
    viewer = DocumentViewer(library, RenderPool(processes=1))
    yield viewer
    viewer.close()


@pytest.fixture(scope="module")
def client(viewer, serve_app) -> Iterator[httpx.Client]:
    from app.web.document_routes import add_document_routes

    app = fastapi.FastAPI()

    @app.exception_handler(UserFacingError)
    def refuse(request: fastapi.Request, error: UserFacingError) -> fastapi.responses.JSONResponse:
        return fastapi.responses.JSONResponse({"error": error.message}, 404)

    add_document_routes(app, SimpleNamespace(viewer=viewer))
    with serve_app(app) as address, httpx.Client(base_url=address, timeout=20, trust_env=False) as client:
        yield client


def added(library: Library, path: Path) -> str:
    document_id = library.add(path).document_id
    assert library.wait(document_id, 30).state == "read"
    return document_id


def test_a_pdf_is_shown_searched_and_marked(client, library):
    book = f"/documents/{added(library, SAMPLE_BOOK)}"
    description = client.get(book)
    assert description.headers["Cache-Control"] == "no-store"
    told = description.json()
    assert (told["kind"], told["page_count"], told["can_render"], told["message"]) == ("pdf", 20, True, "")
    assert told["pages"][0] == {"index": 0, "label": "i", "width": 420.0, "height": 594.96, "note": ""}
    image = client.get(f"{book}/pages/4/image", params={"width": 700})
    assert (image.status_code, image.headers["Content-Type"]) == (200, "image/jpeg")
    assert image.headers["Cache-Control"].startswith("private, max-age=")
    picture = Image.open(io.BytesIO(image.content))
    assert picture.size == (800, 1134)
    found = client.get(f"{book}/search", params={"words": "the  HAPPY Prince", "limit": 1}).json()
    assert found["more"] is True
    hit = found["hits"][0]
    text = client.get(f"{book}/pages/{hit['page_index']}/text").json()["text"]
    assert text[hit["start_char"] : hit["end_char"]].lower().split() == "the happy prince".split()
    assert text[hit["start_char"] : hit["end_char"]] in hit["snippet"]
    where = {"start": hit["start_char"], "end": hit["end_char"]}
    boxes = client.get(f"{book}/pages/{hit['page_index']}/marks", params=where).json()["boxes"]
    assert len(boxes) in (1, 2)
    for left, top, right, bottom in boxes:
        assert 0.1 < left < right < 0.9
        assert 0.005 < bottom - top < 0.05


def test_a_text_has_no_pictures(client, library, tmp_path):
    path = tmp_path / "harbour.txt"
    path.write_text("The harbour lay still in the morning.\n", encoding="utf-8")
    harbour = f"/documents/{added(library, path)}"
    told = client.get(harbour).json()
    assert (told["kind"], told["can_render"], told["message"]) == ("text", False, "")
    assert told["pages"][0]["width"] == told["pages"][0]["height"] == 0
    assert client.get(f"{harbour}/pages/0/text").json() == {"text": "The harbour lay still in the morning."}
    assert client.get(f"{harbour}/pages/0/marks", params={"start": 4, "end": 11}).json() == {"boxes": []}
    image = client.get(f"{harbour}/pages/0/image")
    assert image.status_code == 404
    assert "text" in image.json()["error"]


@pytest.mark.parametrize("route", ["", "/pages/0/image", "/pages/0/text", "/pages/0/marks?start=0&end=9", "/search"])
@pytest.mark.parametrize("document_id", [UNKNOWN, "..%2f..%2fetc%2fpasswd", "x" * 32, UNKNOWN[:-1], "%00" * 32])
def test_what_is_no_document_of_the_library_is_not_found(client, document_id, route):
    response = client.get(f"/documents/{document_id}{route}")
    assert response.status_code == 404
    assert "%2f" in document_id or response.json()["error"]


def test_a_page_that_is_not_there_is_not_found(client, library):
    book = f"/documents/{added(library, SAMPLE_BOOK)}"
    for index in (-1, 20, 10**30):
        for route in ("image", "text", "marks?start=0&end=1"):
            response = client.get(f"{book}/pages/{index}/{route}")
            assert response.status_code == 404
            assert response.json()["error"]
    # Characters that the page does not have are no reason to fail.
    for start, end in ((-5, 10**30), (7, 3), (10**9, 10**9 + 4)):
        marks = client.get(f"{book}/pages/3/marks", params={"start": start, "end": end})
        assert marks.status_code == 200


def test_pages_that_nobody_waits_for_any_more_are_not_rendered(client, viewer, library):
    document_id = added(library, SAMPLE_BOOK)
    go_on, started = threading.Event(), threading.Event()
    viewer._pool.run(lambda connection: started.set() or go_on.wait(20))
    assert started.wait(20)
    with pytest.raises(httpx.ReadTimeout):
        client.get(f"/documents/{document_id}/pages/9/image?width=1200", timeout=0.3)
    time.sleep(0.5)
    go_on.set()
    # What comes after it is there, and it is not.
    assert client.get(f"/documents/{document_id}/pages/8/image?width=1200").status_code == 200
    time.sleep(0.2)
    assert viewer._images.get((document_id, 8, 1200)) and not viewer._images.get((document_id, 9, 1200))


def test_what_is_given_up_says_when_to_ask_again(client, viewer, library, monkeypatch):
    document_id = added(library, SAMPLE_BOOK)

    def give_up(*_: object) -> Future:
        future: Future = Future()
        future.set_exception(RenderBusy("So many pages were asked for after this one."))
        return future

    monkeypatch.setattr(viewer, "image", give_up)
    response = client.get(f"/documents/{document_id}/pages/3/image")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert response.json() == {"error": "So many pages were asked for after this one."}
