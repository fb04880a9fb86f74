"""Races of a conversation, for the page's scripts: begin, stop, look up, and save as a file.

What a race tells is said in docs/race.md; while it runs, its events come over the conversation's telemetry stream. What
cannot be done is answered with a sentence: 404 where there is no such conversation or race, 409 where the conversation
is busy, 400 for a request that is none.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastapi import Body, FastAPI
from fastapi.responses import JSONResponse, Response

from app.chat.answers.answer import AnswerOptions
from app.errors import UserFacingError
from app.race.kept_record import RaceRequest
from quest_core.config import ATTENTIONS

if TYPE_CHECKING:
    from app.chat.assistant import Assistant

_NOT_KEPT = {"Cache-Control": "no-store"}
_MOST_QUESTION_CHARACTERS = 20_000
_MOST_TURN_CHARACTERS = 64
# Longer films are no help, and each token is kept with the pages that it looked at.
_MOST_TOKENS = 1024
_MOST_BUDGET = 1 << 20
_MOST_BUDGETS = 8


def add_race_routes(app: FastAPI, assistant: Assistant) -> None:
    """Serve what lies below `/conversations/ID/races`."""

    # Plain `def` routes run in a thread: these may wait for the database, or count a document's tokens.
    @app.get("/conversations/{conversation_id}/races")
    def races(conversation_id: str) -> JSONResponse:
        outlook = assistant.race_outlook(conversation_id)
        kept = assistant.races.of(conversation_id)
        latest = kept[0].to_json() if kept else None
        return as_json({"races": [race.summary() for race in kept], "latest": latest, "outlook": outlook})

    @app.post("/conversations/{conversation_id}/races")
    def start(conversation_id: str, asked: Any = Body()) -> JSONResponse:  # noqa: B008
        conversation = assistant.conversation(conversation_id)
        try:
            request = race_request(asked, conversation.options or AnswerOptions())
        except ValueError as error:
            return as_json({"error": f"{error}"}, 400)
        try:
            race = assistant.start_race(conversation, request)
        except UserFacingError as error:
            return as_json({"error": error.message}, 409)
        return as_json(race.to_json(), 202)

    @app.get("/conversations/{conversation_id}/races/{race_id}")
    def race(conversation_id: str, race_id: str) -> JSONResponse:
        return as_json(assistant.races.find(conversation_id, race_id).to_json())

    @app.post("/conversations/{conversation_id}/races/{race_id}/stop")
    def stop(conversation_id: str, race_id: str) -> JSONResponse:
        assistant.races.stop(assistant.conversation(conversation_id), race_id)
        return as_json({})

    @app.get("/conversations/{conversation_id}/races/{race_id}/file")
    def file(conversation_id: str, race_id: str) -> Response:
        kept = assistant.races.find(conversation_id, race_id).to_json()
        headers = {"Content-Disposition": f'attachment; filename="{kept["format"]}.json"'} | _NOT_KEPT
        text = json.dumps(kept, ensure_ascii=False, indent=1)
        return Response(text, media_type="application/json; charset=utf-8", headers=headers)


def as_json(content: dict[str, Any], status: int = 200) -> JSONResponse:
    """An answer that no browser keeps."""
    return JSONResponse(content, status, headers=_NOT_KEPT)


def race_request(asked: Any, options: AnswerOptions) -> RaceRequest:
    """The request that a page has sent.

    Args:
        asked: parsed JSON: {"question", "turn_id", "whole_window", "options": {"attention", "token_budget",
            "max_new_tokens"}, "budgets"}; all but the question may be missing.
        options: of the conversation, for what is not said.

    Raises:
        ValueError: if it is anything else; a sentence.
    """
    if not isinstance(asked, dict) or not isinstance(asked.get("options", {}), dict):
        raise ValueError("A race is asked for with a JSON object.")
    question = _text(asked, "question", _MOST_QUESTION_CHARACTERS).strip()
    if not question:
        raise ValueError("Write a question first.")
    given = asked.get("options", {})
    token_budget = _number(given, "token_budget", options.token_budget, _MOST_BUDGET)
    max_new_tokens = _number(given, "max_new_tokens", min(options.max_new_tokens, _MOST_TOKENS), _MOST_TOKENS)
    attention = given.get("attention", options.attention)
    if attention not in ATTENTIONS:
        raise ValueError(f'"attention" must be one of {", ".join(ATTENTIONS)}, not {attention!r:.40}.')
    budgets = asked.get("budgets", [])
    if not isinstance(budgets, list) or len(budgets) > _MOST_BUDGETS:
        raise ValueError(f"A sweep has a list of at most {_MOST_BUDGETS} budgets.")
    numbers = {_number({"budgets": budget}, "budgets", 0, _MOST_BUDGET) for budget in budgets}
    return RaceRequest(
        question,
        replace(options, attention=attention, token_budget=token_budget, max_new_tokens=max_new_tokens),
        _text(asked, "turn_id", _MOST_TURN_CHARACTERS),
        asked.get("whole_window") is True,
        tuple(sorted(numbers)),
    )


def _text(values: dict[str, Any], name: str, most_characters: int) -> str:
    text = values.get(name, "")
    if not isinstance(text, str) or len(text) > most_characters:
        raise ValueError(f'"{name}" must be a text of at most {most_characters:,} characters.')
    return text


def _number(values: dict[str, Any], name: str, default: int, most: int) -> int:
    number = values.get(name, default)
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= most:
        raise ValueError(f'"{name}" must be whole numbers from 1 to {most:,}, not {number!r:.40}.')
    return number
