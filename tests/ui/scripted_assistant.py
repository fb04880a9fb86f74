"""A scripted assistant: answers at once, without a model, in real conversations that outlive it.

It does what `app.chat.assistant.Assistant` promises the page, as far as the page can see: documents with states, turns
with branches, answers that go on whoever follows them.
"""

from __future__ import annotations

import re
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from app.chat.answers.answer import (
    AnswerEvent,
    AnswerOptions,
    AnswerReport,
    DocumentReading,
    DocumentReport,
    Finished,
    ModelLoading,
    PassagesFound,
    PrefillEvent,
    TokenEvent,
)
from app.chat.answers.reads.provenance import PageShare
from app.chat.answers.running_answer import RunningAnswer
from app.chat.answers.telemetry import TelemetryHub
from app.chat.conversations.conversation import Conversation, Turn
from app.chat.prompt.document_tokens import TokenCount
from app.chat.prompt.plan import ContextUsage
from app.errors import UserFacingError
from app.evidence.citation import Citation, EvidencePassage, UnsupportedSentence
from app.library import Document, DocumentPage
from app.models.hub.hub_downloads import HubDownloads
from app.models.model_loader import ModelStatus
from app.race.kept_record import RaceRequest
from app.race.running_race import RunningRace
from quest_core.session_events import PrefillProgress
from tests.ui.scripted_documents import label_of
from tests.ui.scripted_library import ScriptedLibrary, Stored
from tests.ui.scripted_models import ScriptedModels
from tests.ui.scripted_race import OUTLOOK, scripted_races

ANSWER_WORDS = ("High ", "above ", "the ", "city")


class ScriptedAssistant:
    """Stands in for `app.chat.assistant.Assistant`.

    Args:
        stored: what an earlier one left behind.

    Attributes:
        failure: raised by the next answers, if set.
        pause: an answer waits for it after its first word.
        reading: an answer waits for it before its first word.
        asked: questions and options of all answers.
        notice: what there is to say of the data folder.
        words: what every answer says, a word a step.
        finish_reason: why answers end that nobody stops.
        cites: phrases of the documents that support the answer's sentences, in order; "" supports none.
        pages_read: what is told of the pages that answers read.
        images_asked: index and width of all page images that were asked for.
        samples: the sample books that are offered, as the library's listing has them.
    """

    def __init__(self, stored: Stored | None = None) -> None:
        self.stored = stored or Stored()
        self.telemetry = TelemetryHub()
        self.notice = ""
        self.model_downloads = HubDownloads(None, True, lambda: self.telemetry.tell_all({"type": "models"}))
        self.loaded = ModelStatus("ready", "Ready", "tiny-model", "CPU", 4096)
        self.models = ScriptedModels(self.status, self._tell_model, self._is_answering)
        self.failure: Exception | None = None
        self.pause = threading.Event()
        self.pause.set()
        self.reading = threading.Event()
        self.reading.set()
        self.asked: list[tuple[str, AnswerOptions]] = []
        self.words: tuple[str, ...] = ANSWER_WORDS
        self.finish_reason = "stop"
        self.cites: tuple[str, ...] = ()
        self.pages_read: list[dict[str, Any]] = []
        self.images_asked: list[tuple[int, int]] = []
        self.samples: list[dict[str, Any]] = []
        self.library = ScriptedLibrary(self.stored, self._tell_library)
        self.conversations: dict[str, Conversation] = {}
        self.races = scripted_races(self)

    def status(self) -> ModelStatus:
        return self.loaded

    def switch_model(
        self, model: str, context_tokens: int | None = None, weight_bits: int | None = None, stop: bool = False
    ) -> None:
        self.models.switch(model, context_tokens, weight_bits, stop)

    def _tell_model(self, status: ModelStatus) -> None:
        self.loaded = status
        self.telemetry.tell_all({"type": "models"})

    def _is_answering(self) -> bool:
        return any(conversation.running is not None for conversation in self.conversations.values())

    # Conversations.

    def new_conversation(self) -> Conversation:
        conversation = Conversation()
        self.stored.conversations[conversation.conversation_id] = SimpleNamespace(
            documents=[], turns={}, active=None, title="", updated_at=time.time(), is_deleted=False
        )
        return self._load(conversation.conversation_id)

    def open_conversation(self, conversation_id: str = "") -> Conversation:
        if not conversation_id:
            used = [
                one
                for one, kept in self.stored.conversations.items()
                if kept.turns and not kept.is_deleted and not self.telemetry.is_watched(one)
            ]
            return self._load(max(used, key=self._updated_at)) if used else self.new_conversation()
        kept = self.stored.conversations.get(conversation_id)
        if kept is None or kept.is_deleted:
            raise UserFacingError("There is no such conversation.")
        return self._load(conversation_id)

    conversation = open_conversation

    def _updated_at(self, conversation_id: str) -> float:
        return self.stored.conversations[conversation_id].updated_at

    def _load(self, conversation_id: str) -> Conversation:
        conversation = self.conversations.get(conversation_id)
        if conversation is None:
            kept = self.stored.conversations[conversation_id]
            conversation = Conversation(conversation_id, document_ids=kept.documents)
            self.conversations[conversation_id] = conversation
            self.telemetry.open(conversation_id)
            for turn_id, turn in kept.turns.items():
                if turn.state == "answering":
                    kept.turns[turn_id].state = "interrupted"
        self._show_turns(conversation)
        return conversation

    def _show_turns(self, conversation: Conversation) -> None:
        kept = self.stored.conversations[conversation.conversation_id]
        path, turn_id = [], kept.active
        while turn_id is not None:
            path.append(turn_id)
            turn_id = kept.turns[turn_id].parent
        turns = []
        for turn_id in reversed(path):
            turn = kept.turns[turn_id]
            siblings = tuple(one for one, other in kept.turns.items() if other.parent == turn.parent)
            if turn.state != "answering":
                turns.append(Turn(turn.question, turn.answer, turn.report, (1, 2), turn_id, turn.state, siblings))
        conversation.turns[:] = turns

    def conversation_summaries(self, search: str = "") -> list[SimpleNamespace]:
        found = [
            SimpleNamespace(
                conversation_id=conversation_id,
                title=kept.title or "New chat",
                updated_at=kept.updated_at,
                turns=len(kept.turns),
                document_names=[self.stored.entries[one].name for one in kept.documents if one in self.stored.entries],
            )
            for conversation_id, kept in self.stored.conversations.items()
            if not kept.is_deleted
            and (kept.turns or kept.documents)
            and search.lower() in " ".join([kept.title, *(turn.answer for turn in kept.turns.values())]).lower()
        ]
        return sorted(found, key=lambda summary: -summary.updated_at)

    def rename_conversation(self, conversation_id: str, title: str) -> None:
        self.stored.conversations[conversation_id].title = title
        self._tell_library()

    def delete_conversation(self, conversation_id: str) -> None:
        self.stored.conversations[conversation_id].is_deleted = True
        self._tell_library()

    def undelete_conversation(self, conversation_id: str) -> None:
        self.stored.conversations[conversation_id].is_deleted = False
        self._tell_library()

    def export_conversation(self, conversation_id: str, kind: str) -> str:
        return f"{kind}: {[turn.answer for turn in self.open_conversation(conversation_id).turns]}"

    # Documents.

    def add_document(
        self, conversation: Conversation, path: Path, name: str | None = None, password: str | None = None,
        take: bool = False,
    ) -> SimpleNamespace:  # fmt: skip
        entry = self.library.add(path, name, take)
        self.attach_document(conversation, entry.document_id)
        return entry

    def add_sample_book(self, conversation: Conversation, document_id: str) -> SimpleNamespace:
        (sample,) = (one for one in self.samples if one["document_id"] == document_id)
        with tempfile.TemporaryDirectory() as folder:
            (path := Path(folder) / "sample.txt").write_text(sample["title"])
            entry = self.library.add(path, None, take=False)
        # The real one has the same id before and after.
        self.stored.texts[document_id] = self.stored.texts.pop(entry.document_id)
        self.stored.entries[document_id] = self.stored.entries.pop(entry.document_id)
        entry.document_id, entry.name = document_id, sample["title"]
        self.samples.remove(sample)
        self.attach_document(conversation, document_id)
        return entry

    def attach_document(self, conversation: Conversation, document_id: str) -> None:
        self.library.entry(document_id)
        if document_id not in conversation.document_ids:
            conversation.document_ids.append(document_id)
        self._tell_changed(conversation)

    def remove_document(self, conversation: Conversation, document_id: str) -> None:
        conversation.document_ids.remove(document_id)
        self._tell_changed(conversation)

    def delete_document(self, document_id: str) -> None:
        del self.stored.entries[document_id]
        for conversation in self.conversations.values():
            if document_id in conversation.document_ids:
                self.remove_document(conversation, document_id)
        self._tell_library()

    def entries(self, conversation: Conversation) -> list[SimpleNamespace]:
        return [self.library.entry(document_id) for document_id in conversation.document_ids]

    def documents(self, conversation: Conversation) -> list[Document]:
        read = [entry for entry in self.entries(conversation) if entry.state == "read"]
        return [
            Document(
                entry.document_id,
                entry.name,
                Path(entry.file_name),
                tuple(
                    DocumentPage(index, label_of(index), text)
                    for index, text in enumerate(self.stored.texts[entry.document_id])
                ),
            )
            for entry in read
        ]

    def context_usage(self, conversation: Conversation) -> ContextUsage:
        return ContextUsage(TokenCount(1204 * len(conversation.document_ids)), 30, 4096, "whole")

    def library_json(self, conversation_id: str, search: str) -> dict[str, Any]:
        conversation = self.open_conversation(conversation_id)
        is_ready = self.loaded.stage == "ready"
        documents = [
            vars(entry)
            | {
                "in_conversation": entry.document_id in conversation.document_ids,
                "tokens": "1,204" if entry.state == "read" and is_ready else None,
                "reading": {"share": 1.0, "remaining_s": None, "stage": "read", "message": ""},
                "kept_bytes": 2 << 20,
                "conversation_count": sum(
                    entry.document_id in kept.documents for kept in self.stored.conversations.values()
                ),
            }
            for entry in self.library.entries()
            if search.lower() in entry.name.lower()
        ]
        conversations = [vars(one) for one in self.conversation_summaries(search)]
        return {"documents": documents, "samples": self.samples, "conversations": conversations}

    # Answers.

    def ask(
        self, conversation: Conversation, question: str, options: AnswerOptions, after_turn: int | None = None
    ) -> RunningAnswer:
        if conversation.running is not None:
            raise UserFacingError("The last answer is still being written. Stop it, or wait for its end.")
        self.asked.append((question, options))
        kept = self.stored.conversations[conversation.conversation_id]
        earlier = conversation.turns if after_turn is None else conversation.turns[:after_turn]
        before = kept.active
        parent = earlier[-1].turn_id if earlier else None
        turn_id = uuid.uuid4().hex
        turn = SimpleNamespace(parent=parent, question=question, answer="", report=None, state="answering")
        kept.turns[turn_id], kept.active = turn, turn_id
        kept.title, kept.updated_at = kept.title or question, time.time()
        conversation.unanswered = ""
        return self._begin(conversation, turn_id, before)

    def continue_answer(self, conversation: Conversation, turn_id: str, options: AnswerOptions) -> RunningAnswer:
        kept = self.stored.conversations[conversation.conversation_id]
        kept.turns[turn_id].state = "answering"
        return self._begin(conversation, turn_id, kept.active)

    def _begin(self, conversation: Conversation, turn_id: str, before: str | None) -> RunningAnswer:
        kept = self.stored.conversations[conversation.conversation_id]
        turn = kept.turns[turn_id]
        question = turn.question
        conversation.cancelled.clear()
        self._show_turns(conversation)

        def events(running: RunningAnswer) -> Iterator[AnswerEvent]:
            try:
                yield from self._answer(conversation, turn)
            finally:
                if not turn.answer:
                    del kept.turns[turn_id]
                    kept.active = before
                    conversation.unanswered = question
                self._show_turns(conversation)
                conversation.running = None
                # After the last event, as the real one does.
                threading.Timer(0.01, self._tell_changed, (conversation,)).start()

        running = conversation.running = RunningAnswer(question, turn_id, events, turn.answer)
        running.start()
        self._tell_changed(conversation)
        return running

    def _answer(self, conversation: Conversation, turn: SimpleNamespace) -> Iterator[AnswerEvent]:
        while self.loaded.stage == "loading":
            yield ModelLoading(self.loaded.message)
            time.sleep(0.05)
        for document_id in list(conversation.document_ids):
            entry = self.library.entry(document_id)
            while entry.state == "reading":
                yield DocumentReading(entry.name, entry.progress)
                time.sleep(0.05)
        passages = self._passages(conversation)
        if passages:
            yield PassagesFound(passages)
        yield PrefillEvent(PrefillProgress(0, 100, 200, 0.5), 0.5)
        if self.failure is not None:
            raise self.failure
        while not self.reading.wait(0.02) and not conversation.cancelled.is_set():
            pass
        for step, word in enumerate(self.words):
            if conversation.cancelled.is_set():
                break
            turn.answer += word
            yield TokenEvent(word, turn.answer, step, 0.05, 20.0, 20.0)
            while not self.pause.wait(0.02) and not conversation.cancelled.is_set():
                pass
        cancelled = conversation.cancelled.is_set()
        citations, unsupported = self._evidence(turn.answer, passages)
        turn.report = replace(
            answer_report(turn.answer, "cancelled" if cancelled else self.finish_reason),
            passages_found=passages,
            citations=citations,
            unsupported=unsupported,
        )
        turn.state = "stopped" if cancelled else "finished"
        self._show_turns(conversation)
        yield Finished(turn.report)

    def _passages(self, conversation: Conversation) -> tuple[EvidencePassage, ...]:
        """The lines of the documents that hold a cited phrase."""
        found = []
        for phrase in filter(None, self.cites):
            for document_id in conversation.document_ids:
                for index, text in enumerate(self.stored.texts[document_id]):
                    start = text.find(phrase)
                    if start < 0:
                        continue
                    end = (text + "\n").find("\n", start)
                    name, label = self.stored.entries[document_id].name, label_of(index)
                    found.append(EvidencePassage(name, document_id, label, index, start, end, text[start:end], 0.8))
        return tuple(found)

    def _evidence(
        self, answer: str, passages: tuple[EvidencePassage, ...]
    ) -> tuple[tuple[Citation, ...], tuple[UnsupportedSentence, ...]]:
        """A citation, or none, for each sentence, as `cites` says."""
        citations, unsupported = [], []
        for sentence, phrase in zip(re.finditer(r"[^.\n]+\.", answer), self.cites, strict=False):
            start, end = sentence.span()
            passage = next((one for one in passages if phrase and phrase in one.text), None)
            if passage is None:
                unsupported.append(UnsupportedSentence(sentence[0], start, end))
                continue
            number = passages.index(passage) + 1
            citations.append(Citation(number, sentence[0], start, end, **vars(passage), read_score=3.2))
        return tuple(citations), tuple(unsupported)

    def document_pages(self, conversation_id: str) -> dict[str, Any]:
        documents = [
            {
                "document_id": document_id,
                "name": self.stored.entries[document_id].name,
                "pages": [[index, label_of(index)] for index in range(len(self.stored.texts[document_id]))],
            }
            for document_id in self.open_conversation(conversation_id).document_ids
        ]
        return {"documents": documents, "end": None}

    def running_answer(self, conversation: Conversation) -> RunningAnswer | None:
        return conversation.running

    def select_turn(self, conversation: Conversation, turn_id: str) -> None:
        kept = self.stored.conversations[conversation.conversation_id]
        if turn_id not in kept.turns:
            raise UserFacingError("There is no such turn.")
        while later := [one for one, turn in kept.turns.items() if turn.parent == turn_id]:
            turn_id = later[-1]
        kept.active = turn_id
        self._show_turns(conversation)
        self._tell_changed(conversation)

    def cancel(self, conversation: Conversation) -> None:
        conversation.cancelled.set()

    def start_race(self, conversation: Conversation, request: RaceRequest) -> RunningRace:
        return self.races.start(conversation, request)

    def race_outlook(self, conversation_id: str) -> dict[str, Any]:
        return OUTLOOK

    # What is told to the tabs.

    def _tell_changed(self, conversation: Conversation) -> None:
        self.telemetry.tell(conversation.conversation_id, {"type": "changed"})
        self._tell_library()

    def _tell_library(self) -> None:
        self.telemetry.tell_all({"type": "library"})

    def forget(self) -> None:
        """Begin with an empty library and no conversation."""
        for conversation_id in list(self.conversations):
            self.telemetry.forget(conversation_id)
        self.conversations.clear()
        self.stored.entries.clear()
        self.stored.conversations.clear()
        self.asked.clear()
        self.cites, self.pages_read = (), []
        self.images_asked.clear()
        self.samples = []


def answer_report(answer: str = "High above the city", finish_reason: str = "stop") -> AnswerReport:
    """A report with round figures."""
    return AnswerReport(
        answer=answer,
        model="tiny-model",
        device="CPU",
        attention="quest",
        token_budget=1024,
        page_size=16,
        document=DocumentReport(20, 6310, 6310),
        prompt_tokens=6400,
        reused_tokens=6310,
        prefill_s=1.0,
        time_to_first_token_s=0.31,
        decode_tokens=4,
        decode_tokens_per_s=18.6,
        finish_reason=finish_reason,
        pages_read=(PageShare("book.pdf", "12", 0.31), PageShare("book.pdf", "iv", 0.14)),
    )
