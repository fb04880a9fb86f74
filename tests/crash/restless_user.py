"""A user who never rests, inside the server's own process: adds documents, asks, asks anew, renames, deletes.

Tells through a pipe, line by line, what it is about to do and what it was told is done, so that whoever kills the
process knows what must have survived. Checks every first answer over one document against what the model says to it
when nothing is kept: an answer from a damaged snapshot would differ.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

from app.chat.answers.answer import AnswerOptions, AnswerReport, Finished
from app.chat.assistant import Assistant
from app.chat.conversations.conversation import Conversation

QUESTIONS = ("Who kept the light?", "Where did the boats go?", "What lay in the harbour?", "Why had he left?")
OPTIONS = AnswerOptions(max_new_tokens=24)
READING_TIMEOUT_S = 60.0
_ACTIONS = ("ask", "ask", "ask", "ask again", "add", "new", "rename", "rename document", "delete document", "delete")


class RestlessUser:
    """Drives an assistant until the process ends.

    Args:
        assistant: of the server.
        documents: files to add.
        expected: answer to (document's file name, question) over a fresh model, greedy.
        seed: of what is done.
        pipe: file descriptor that lines of JSON go to.
    """

    def __init__(
        self, assistant: Assistant, documents: list[Path], expected: dict[tuple[str, str], str], seed: int, pipe: int
    ) -> None:
        self._assistant = assistant
        self._documents = documents
        self._expected = expected
        self._random = random.Random(seed)
        self._pipe = pipe

    def run(self) -> None:
        """Never returns; whatever goes wrong is told and ends the process."""
        try:
            self._assistant.wait_until_ready()
            self.tell("ready")
            while True:
                conversation = self._any_conversation()
                action = self._random.choice(_ACTIONS)
                self.tell("doing", action=action)
                getattr(self, f"_{action.replace(' ', '_')}")(conversation)
        except BaseException as error:
            self.tell("failed", error=f"{type(error).__name__}: {error}")
            raise

    def tell(self, what: str, **values: Any) -> None:
        """Write a line; short ones are written as a whole or not at all."""
        os.write(self._pipe, (json.dumps({"what": what, **values}) + "\n").encode())

    def _any_conversation(self) -> Conversation:
        stored = self._assistant.conversation_summaries()
        if not stored or self._random.random() < 0.3:
            return self._assistant.new_conversation()
        return self._assistant.open_conversation(self._random.choice(stored).conversation_id)

    def _add(self, conversation: Conversation) -> None:
        path = self._random.choice(self._documents)
        entry = self._assistant.add_document(conversation, path)
        self.tell("added", document=entry.document_id)

    def _new(self, conversation: Conversation) -> None:
        """One document, one question: the answer is known."""
        conversation = self._assistant.new_conversation()
        path = self._random.choice(self._documents)
        entry = self._assistant.add_document(conversation, path)
        self.tell("added", document=entry.document_id)
        question = self._random.choice(QUESTIONS)
        report = self._answer(conversation, question)
        expected = self._expected[path.name, question]
        if report.answer != expected:
            told = {"document": path.name, "question": question, "expected": expected, "report": report.to_json()}
            self.tell("wrong answer", **told)

    def _ask(self, conversation: Conversation) -> None:
        if len(conversation.turns) < 4:
            self._answer(conversation, self._random.choice(QUESTIONS))

    def _ask_again(self, conversation: Conversation) -> None:
        if conversation.turns:
            after = self._random.randrange(len(conversation.turns))
            self._answer(conversation, self._random.choice(QUESTIONS), after)

    def _answer(self, conversation: Conversation, question: str, after_turn: int | None = None) -> AnswerReport:
        running = self._assistant.ask(conversation, question, OPTIONS, after_turn)
        for event in running.follow():
            last = event
        assert isinstance(last, Finished)
        if not last.report.is_empty:
            # Now, and only now, a user may count on it.
            turn = conversation.turns[-1]
            self.tell(
                "answered",
                conversation=conversation.conversation_id,
                turn=turn.turn_id,
                question=question,
                answer=last.report.answer,
            )
        return last.report

    def _rename(self, conversation: Conversation) -> None:
        if conversation.turns:
            title = f"title {self._random.randrange(1000)}"
            self._assistant.rename_conversation(conversation.conversation_id, title)
            self.tell("renamed", conversation=conversation.conversation_id, title=title)

    def _rename_document(self, conversation: Conversation) -> None:
        entries = self._assistant.library.entries()
        if entries:
            entry = self._random.choice(entries)
            self._assistant.library.rename(entry.document_id, f"name {self._random.randrange(1000)}")

    def _delete_document(self, conversation: Conversation) -> None:
        entries = self._assistant.library.entries()
        if len(entries) > 2:
            entry = self._random.choice(entries)
            self.tell("deleting document", document=entry.document_id)
            self._assistant.delete_document(entry.document_id)
            self.tell("deleted document", document=entry.document_id)

    def _delete(self, conversation: Conversation) -> None:
        stored = self._assistant.conversation_summaries()
        if len(stored) > 20:
            gone = self._random.choice(stored).conversation_id
            self.tell("deleting", conversation=gone)
            self._assistant.delete_conversation(gone)
            self.tell("deleted", conversation=gone)
