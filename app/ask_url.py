"""`ask --url`: questions about documents, answered by a Quest Chat that runs already.

The answer goes to stdout and everything else to stderr, as with `ask`. No model is loaded here, and nothing that would.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from app.chat.answers.engine_words import cut_words
from app.errors import UserFacingError
from app.evidence.source_lines import source_lines
from app.progress_line import ProgressLine
from app.questions_file import read_questions
from app.running_app import RunningApp, chat_messages
from app.settings import AppSettings

# How often an app whose model is loading is asked.
_POLL_S = 0.5
_READING_SETTINGS = ("attention", "token_budget")


def run_ask_url(settings: AppSettings, arguments: argparse.Namespace) -> int:
    """Answer the questions of a parsed command line; returns the exit code.

    Args:
        settings: attention and token_budget, where they are not the defaults: the app has its own.
        arguments: url, api_key, documents, question or questions (a file), json, max_new_tokens, temperature, top_p,
            seed, system_prompt.

    Raises:
        UserFacingError: for whatever stops it.
    """
    questions = [arguments.question] if arguments.questions is None else read_questions(arguments.questions)
    progress = ProgressLine(sys.stderr)
    with closing(RunningApp(arguments.url, arguments.api_key)) as running:
        _wait_for_model(running, progress)
        request = _request(settings, arguments, running.model_name())
        ids = dict.fromkeys(_add_document(running, path, progress) for path in arguments.documents)
        if ids:
            request["documents"] = list(ids)
        turns: list[tuple[str, str]] = []
        for question in questions:
            if not arguments.json and len(questions) > 1:
                print(f"> {question}", flush=True)
            request["messages"] = chat_messages(arguments.system_prompt or "", turns, question)
            answer = _Answer(progress, is_shown=not arguments.json)
            answer.take(running.answer(request))
            if arguments.json:
                print(json.dumps(answer.to_json(), ensure_ascii=False), flush=True)
            else:
                answer.show_sources()
            turns.append((question, answer.text))
    return 0


def _wait_for_model(running: RunningApp, progress: ProgressLine) -> None:
    while (health := running.health()).get("status") in ("starting", "loading"):
        progress.show(f"The model is loading: {health.get('message')}")
        time.sleep(_POLL_S)
    if health.get("status") == "failed":
        raise UserFacingError(f"The Quest Chat at {running.address} has no model: {health.get('message')}")


def _request(settings: AppSettings, arguments: argparse.Namespace, model: str) -> dict[str, Any]:
    """What is the same for all questions."""
    request: dict[str, Any] = {
        "model": model,
        "max_tokens": arguments.max_new_tokens,
        "temperature": arguments.temperature,
        "top_p": arguments.top_p,
    }
    if arguments.seed is not None:
        request["seed"] = arguments.seed
    reading = {name: getattr(settings, name) for name in _READING_SETTINGS}
    if said := {name: value for name, value in reading.items() if value != getattr(AppSettings, name)}:
        request["quest"] = said
    return request


def _add_document(running: RunningApp, path: Path, progress: ProgressLine) -> str:
    progress.show(f"Sending {path.name}")
    document_id = running.add_document(path)
    for entry in running.follow_reading(document_id):
        if entry["state"] == "reading":
            share = f": {100 * entry['progress']:.0f} %" if entry.get("progress") is not None else ""
            progress.show(f"Reading {path.name}{share}")
    if entry["state"] == "locked":
        raise UserFacingError(f"{entry['message']} With --url the password is given in the page, at {running.address}.")
    if entry["state"] != "read":
        raise UserFacingError(entry["message"])
    pages = entry["page_count"]
    progress.show(f"Read {entry['name']}: {pages} page{'s' * (pages != 1)}", last=True)
    return document_id


class _Answer:
    """An answer as it comes."""

    def __init__(self, progress: ProgressLine, is_shown: bool) -> None:
        self.text = ""
        self._progress = progress
        self._is_shown = is_shown
        self._thinking = ""
        self._first_token_s: float | None = None
        self._seconds = 0.0
        self._finish_reason: str | None = None
        # What a chunk has beside its choices and what is the same in each: the model, usage, citations, statistics.
        self._beside: dict[str, Any] = {}

    def take(self, chunks: Iterable[dict[str, Any]]) -> None:
        """Follow the answer to its end, and print it if that is wanted."""
        start = time.monotonic()
        for chunk in chunks:
            told = ("id", "object", "created", "choices", "system_fingerprint")
            self._beside |= {name: value for name, value in chunk.items() if name not in told and value is not None}
            for choice in chunk.get("choices") or ():
                self._finish_reason = choice.get("finish_reason") or self._finish_reason
                delta = choice.get("delta") or {}
                thought, said = delta.get("reasoning_content") or "", delta.get("content") or ""
                if (thought or said) and self._first_token_s is None:
                    self._first_token_s = time.monotonic() - start
                if thought:
                    self._thinking += thought
                    self._progress.show("Thinking")
                self.text += said
                if said and self._is_shown:
                    print(said, end="", flush=True)
        self._seconds = time.monotonic() - start
        if self._is_shown:
            print(flush=True)

    def show_sources(self) -> None:
        """Say on stderr what supports the answer, and what it took."""
        listed = {name: self._list(name, lacks) for name, lacks in _SOURCES.items()}
        for line in source_lines(SimpleNamespace(**listed)):
            self._progress.show(line, last=True)
        quest = self._quest()
        if reason := quest.get("engine_reason"):
            self._progress.show(cut_words("the engine behind the app", str(reason)), last=True)
        if warning := quest.get("warning"):
            self._progress.show(str(warning), last=True)
        usage = self._beside.get("usage") or {}
        parts = [f"{self._seconds:.1f} s"]
        if "completion_tokens" in usage:
            parts.insert(0, f"{usage['completion_tokens']} tokens")
        if "prompt_tokens" in usage:
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
            parts.append(f"prompt of {usage['prompt_tokens']} tokens, {cached} of them reused")
        if not self.text.strip() and not reason:
            parts.insert(0, "the model ended its answer before its first word")
        self._progress.show("; ".join(parts), last=True)

    def to_json(self) -> dict[str, Any]:
        """The answer, how long it took, and all that the app told beside it."""
        answer: dict[str, Any] = {"answer": self.text}
        if self._thinking:
            answer["thinking"] = self._thinking
        answer |= {"finish_reason": self._finish_reason, "time_to_first_token_s": self._first_token_s}
        return answer | {"citations": []} | self._beside

    def _quest(self) -> dict[str, Any]:
        """What the app tells of how the answer was made."""
        quest = self._beside.get("quest")
        return quest if isinstance(quest, dict) else {}

    def _list(self, name: str, lacks: dict[str, Any]) -> list[SimpleNamespace]:
        found = self._beside.get(name) or self._quest().get(name) or ()
        return [SimpleNamespace(**lacks | one) for one in found if isinstance(one, dict)]


# What stands beside an answer, and what is shown of each where the app does not tell it.
_PLACE = {"document": "", "document_id": "", "page_label": "?", "text": ""}
_SOURCES: dict[str, dict[str, Any]] = {
    "citations": {"number": 1, "read_score": None, **_PLACE},
    "unsupported": {"sentence": ""},
    "passages_found": _PLACE,
}
