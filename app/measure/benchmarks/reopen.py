"""`bench reopen`: how long the first word of an answer takes when the document was read before, and when it was not.

The whole app without its page: a document of the library, a conversation, a question. Every round has a data folder of
its own, goes through all paths in turn and asks a question of its own on each, so that no path has more than the
document in common with another. Nothing is read ahead of a question: who asks at once waits for all of it. What
`after_restart` reads is dropped from the system's file cache first, so that it comes from the disk.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.chat.answers.answer import AnswerOptions, AnswerReport
from app.chat.assistant import Assistant
from app.chat.conversations.conversation import Conversation
from app.errors import UserFacingError
from app.measure.benchmarks.instruments.file_cache import drop_from_file_cache
from app.measure.machine import describe_machine
from app.measure.sample_text import BOOKS, read_text
from app.settings import AppSettings

PATHS = ("fresh", "same_conversation", "other_conversation", "after_restart")
# Beside the sample book: a text that nearly fills the embedded model's window.
LONG_TEXT_TOKENS = 15_000
_QUESTIONS = {
    "fresh": "Who tells the story?",
    "same_conversation": "Where does the story take place?",
    "other_conversation": "How does the story begin?",
    "after_restart": "How does the story end?",
}
# Enough of an answer to know when it began.
_ANSWER_TOKENS = 8
_READING_TIMEOUT_S = 1800.0
_WRITING_TIMEOUT_S = 600.0


def measure_reopen(
    settings: AppSettings,
    *,
    rounds: int,
    documents: Sequence[Path] = (),
    on_progress: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Measure the time to the first token on each of `PATHS`: the medians of `rounds`.

    Args:
        settings: which model, and how; its data folder gives the converted model, nothing is written there.
        rounds: how often each path is measured.
        documents: any that the app reads and that fit the window; () takes the sample book, and `LONG_TEXT_TOKENS`
            tokens of it, repeated.

    Returns:
        `rows` {path, document, document_tokens, time_to_first_token_s, prefilled_tokens, restored_bytes, sooner},
        `skipped` and `machine`.

    Raises:
        UserFacingError: if a document cannot be read, or does not fit the window.
    """
    with tempfile.TemporaryDirectory(prefix="quest-chat-reopen-") as folder:
        documents = documents or (next(BOOKS.glob("*.pdf")), _long_text(settings, Path(folder)))
        rows: list[dict[str, Any]] = []
        for document in documents:
            figures: dict[str, list[dict[str, Any]]] = {path: [] for path in PATHS}
            for number in range(rounds):
                on_progress(f"{document.name}: round {number + 1} of {rounds}")
                data_dir = Path(folder, f"{document.stem}-{number}")
                for path, report in _measure_round(_private(settings, data_dir), document):
                    figures[path].append(_figures(report))
            rows += _medians(document.name, figures)
        device = _device(settings)
    return {
        "benchmark": "reopen",
        "model": settings.model,
        "rounds": rounds,
        "machine": describe_machine(device),
        "skipped": [],
        "rows": rows,
    }


def _private(settings: AppSettings, data_dir: Path) -> AppSettings:
    """The same settings over an empty data folder, which borrows the converted models."""
    data_dir.mkdir()
    settings.cache_dir.mkdir(parents=True, exist_ok=True)
    (data_dir / settings.cache_dir.name).symlink_to(settings.cache_dir, target_is_directory=True)
    return replace(settings, data_dir=data_dir)


def _measure_round(settings: AppSettings, document: Path) -> Iterator[tuple[str, AnswerReport]]:
    with closing(Assistant(settings)) as assistant:
        assistant.wait_until_ready()
        conversation = assistant.new_conversation(kept=False)
        entry = assistant.add_document(conversation, document)
        assistant.library.wait(entry.document_id, _READING_TIMEOUT_S)
        yield "fresh", _ask(assistant, conversation, "fresh")
        yield "same_conversation", _ask(assistant, conversation, "same_conversation")
        other = assistant.new_conversation(kept=False)
        assistant.attach_document(other, entry.document_id)
        yield "other_conversation", _ask(assistant, other, "other_conversation")
        if not assistant.flush_snapshots(_WRITING_TIMEOUT_S):
            raise UserFacingError("The snapshots were not written in time. Is the disk very slow, or full?")
    drop_from_file_cache(settings.data_dir / "snapshots")
    with closing(Assistant(settings)) as assistant:
        assistant.wait_until_ready()
        conversation = assistant.new_conversation(kept=False)
        assistant.attach_document(conversation, entry.document_id)
        yield "after_restart", _ask(assistant, conversation, "after_restart")


def _ask(assistant: Assistant, conversation: Conversation, path: str) -> AnswerReport:
    options = AnswerOptions(max_new_tokens=_ANSWER_TOKENS)
    for event in assistant.answer(conversation, _QUESTIONS[path], options):
        last = event
    if last.report.passages is not None:
        raise UserFacingError("A document is longer than the window. Give more --context-tokens or a shorter --text.")
    return last.report


def _figures(report: AnswerReport) -> dict[str, Any]:
    return {
        "document_tokens": report.document.tokens,
        "time_to_first_token_s": report.time_to_first_token_s,
        "prefilled_tokens": report.prompt_tokens - report.reused_tokens,
        "restored_bytes": report.restored_bytes,
    }


def _medians(name: str, figures: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row for each path; `sooner` is how many times as soon as fresh."""
    rows = []
    for path, measured in figures.items():
        medians = {column: statistics.median(each[column] for each in measured) for column in measured[0]}
        seconds = [each["time_to_first_token_s"] for each in measured]
        row = {"path": path, "document": name, **medians, "fastest_s": min(seconds), "slowest_s": max(seconds)}
        fresh_s = (rows[0] if rows else row)["time_to_first_token_s"]
        rows.append(row | {"sooner": fresh_s / row["time_to_first_token_s"]})
    return rows


def _long_text(settings: AppSettings, folder: Path) -> Path:
    """The sample book, repeated up to `LONG_TEXT_TOKENS` tokens of the model."""
    from app.chat.prompt.template import ChatTokenizer
    from quest_core.model.model_source import find_model

    _, model_folder = find_model(
        settings.model, settings.cache_dir, offline=settings.offline, on_progress=lambda message: None
    )
    tokenizer = ChatTokenizer(model_folder)
    _, book = read_text(None)
    book_tokens = tokenizer.count(book)
    text = book * (LONG_TEXT_TOKENS // book_tokens)
    rest = LONG_TEXT_TOKENS - book_tokens * (LONG_TEXT_TOKENS // book_tokens)
    path = folder / "the-happy-prince-repeated.txt"
    path.write_text(text + book[: len(book) * rest // book_tokens], encoding="utf-8")
    return path


def _device(settings: AppSettings) -> Any:
    from quest_core.engine import choose_device

    return choose_device(settings.device)
