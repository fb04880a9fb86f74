"""What stands beside an answer as its evidence, for the page's scripts.

What they tell is said in `app.chat.answers.answer_sources` and `app.chat.answers.reads.document_pages`. An answer that
is not there is answered with 404 and a sentence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

    from app.chat.assistant import Assistant


def add_source_routes(app: FastAPI, assistant: Assistant) -> None:
    """Serve the sources of answers."""
    from fastapi.responses import JSONResponse

    # A plain `def` route runs in a thread: this one may wait for the database.
    @app.get("/conversations/{conversation_id}/turns/{turn_id}/sources")
    def sources(conversation_id: str, turn_id: str) -> JSONResponse:
        return JSONResponse(assistant.sources(conversation_id, turn_id), headers={"Cache-Control": "no-store"})

    @app.get("/conversations/{conversation_id}/document-pages")
    def document_pages(conversation_id: str) -> JSONResponse:
        return JSONResponse(assistant.document_pages(conversation_id), headers={"Cache-Control": "no-store"})
