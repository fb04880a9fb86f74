"""Documents of the scripted assistant as the document view sees them, with routes of the same shape as the real ones.

A file's text is cut into pages at form feeds. One whose name ends in .pdf has images: each line of a page's text is
drawn at a known place, so that its marks are known, too.
"""

from __future__ import annotations

import io
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import FastAPI

    from tests.ui.scripted_assistant import ScriptedAssistant

# Of a page, in points; lines begin below and beside the margin.
WIDTH, HEIGHT, MARGIN, LINE_HEIGHT, CHARACTER_WIDTH = 420, 595, 40, 16, 5.6


def add_scripted_routes(app: FastAPI, assistant: ScriptedAssistant) -> None:
    """Serve documents and sources ahead of the app's own routes."""
    from fastapi import APIRouter
    from fastapi.responses import JSONResponse, Response

    router = APIRouter()

    def pages_of(document_id: str) -> list[str]:
        return assistant.stored.texts[document_id]

    @router.get("/documents/{document_id}")
    def document(document_id: str) -> JSONResponse:
        entry = assistant.library.entry(document_id)
        is_pdf = entry.file_name.endswith(".pdf")
        size = {"width": WIDTH, "height": HEIGHT} if is_pdf else {"width": 0, "height": 0}
        pages = [
            {"index": index, "label": label_of(index), "note": "picture" if not text.strip() else "", **size}
            for index, text in enumerate(pages_of(document_id))
        ]
        return JSONResponse(
            {
                "document_id": document_id,
                "name": entry.name,
                "kind": "pdf" if is_pdf else "text",
                "page_count": len(pages),
                "pages": pages,
                "can_render": is_pdf,
                "message": "",
            }
        )

    @router.get("/documents/{document_id}/pages/{index}/image")
    def image(document_id: str, index: int, width: int) -> Response:
        assistant.images_asked.append((index, width))
        return Response(draw(pages_of(document_id)[index], width), media_type="image/png")

    @router.get("/documents/{document_id}/pages/{index}/text")
    def text(document_id: str, index: int) -> JSONResponse:
        return JSONResponse({"text": pages_of(document_id)[index]})

    @router.get("/documents/{document_id}/pages/{index}/marks")
    def marks(document_id: str, index: int, start: int, end: int) -> JSONResponse:
        return JSONResponse({"boxes": boxes(pages_of(document_id)[index], start, end)})

    @router.get("/documents/{document_id}/search")
    def search(document_id: str, words: str, limit: int) -> JSONResponse:
        hits = []
        for index, page in enumerate(pages_of(document_id)):
            start = page.lower().find(words.lower())
            while start >= 0:
                hits.append(
                    {
                        "page_index": index,
                        "page_label": label_of(index),
                        "start_char": start,
                        "end_char": start + len(words),
                        "snippet": page[max(0, start - 20) : start + 40].replace("\n", " "),
                    }
                )
                start = page.lower().find(words.lower(), start + 1)
        return JSONResponse({"hits": hits[:limit], "more": len(hits) > limit})

    @router.get("/conversations/{conversation_id}/turns/{turn_id}/sources")
    def sources(conversation_id: str, turn_id: str) -> JSONResponse:
        turn = assistant.stored.conversations[conversation_id].turns[turn_id]
        report = turn.report
        told: dict[str, Any] = {"turn_id": turn_id, "running": report is None, "pages_read": assistant.pages_read}
        for name in ("passages_found", "citations", "unsupported"):
            told[name] = [] if report is None else [asdict(one) for one in getattr(report, name)]
        return JSONResponse(told)

    # Gradio takes every address that is left.
    app.router.routes[:0] = router.routes


def label_of(index: int) -> str:
    return str(index + 1)


def draw(text: str, width: int) -> bytes:
    """A page as a PNG file."""
    from PIL import Image, ImageDraw, ImageFont

    scale = width / WIDTH
    picture = Image.new("RGB", (width, round(HEIGHT * scale)), "white")
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(max(4, 10 * scale))
    for number, line in enumerate(text.splitlines()):
        for column, character in enumerate(line):
            place = (scale * (MARGIN + column * CHARACTER_WIDTH), scale * (MARGIN + number * LINE_HEIGHT))
            pen.text(place, character, "#123", font)
    if not text.strip():
        pen.rectangle([scale * MARGIN, scale * MARGIN, width - scale * MARGIN, scale * 300], fill="#c33")
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def boxes(text: str, start: int, end: int) -> list[list[float]]:
    """Where `draw` puts characters of a text, a box a line, in fractions of the page."""
    found, place = [], 0
    for number, line in enumerate(text.split("\n")):
        first, last = max(start, place) - place, min(end, place + len(line)) - place
        if first < last:
            top = (MARGIN + number * LINE_HEIGHT) / HEIGHT
            left, right = ((MARGIN + column * CHARACTER_WIDTH) / WIDTH for column in (first, last))
            found.append([left, top, right, top + 13 / HEIGHT])
        place += len(line) + 1
    return found
