"""Conversations between memory and the store: loaded, and each turn saved while its answer is written.

A storage error never stops an answer: it is kept in memory, and `TurnRecord.warning` says what could not be saved.
Where nothing is stored (a question in the terminal) the turns are in memory alone. Knows nothing of models or of how
answers are made.
"""

from __future__ import annotations

import threading
import uuid
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from app.chat.answers.answer import AnswerReport
from app.chat.conversations.conversation import Conversation, Turn, TurnState
from app.errors import UserFacingError

if TYPE_CHECKING:
    from app.store.conversation_store import ConversationStore
    from app.store.stored_conversation import StoredConversation, StoredTurn

# The streamed part of an answer is saved at least every second.
_SAVE_INTERVAL_S = 0.8


@dataclass(frozen=True)
class AnswerSoFar:
    """What there is of an answer: its text, its tokens, and the thought before it."""

    answer: str = ""
    token_ids: tuple[int, ...] = ()
    thinking: str = ""


class StoredConversations:
    """Loads and saves conversations.

    Args:
        store: where they are.
    """

    def __init__(self, store: ConversationStore) -> None:
        self._store = store

    def create(self) -> Conversation:
        """A new conversation in the store.

        Raises:
            UserFacingError: if it cannot be stored.
        """
        return Conversation(self._store.create())

    def load(self, conversation_id: str) -> Conversation | None:
        """The conversation of that id; None if there is none, or it was deleted."""
        stored = self._store.find(conversation_id)
        if stored is None:
            return None
        conversation = Conversation(conversation_id)
        conversation.document_ids = [document.document_id for document in stored.documents]
        conversation.read_ids = {document.document_id for document in stored.documents if document.was_read}
        self._take(conversation, stored)
        return conversation

    def refresh(self, conversation: Conversation) -> None:
        """Bring turns, title and the unanswered question to what is stored."""
        if conversation.is_kept and (stored := self._store.find(conversation.conversation_id)) is not None:
            self._take(conversation, stored)

    def refresh_title(self, conversation: Conversation) -> None:
        """Bring the title to what is stored, whatever the conversation is doing."""
        if conversation.is_kept and (stored := self._store.find(conversation.conversation_id)) is not None:
            conversation.title = stored.title

    @staticmethod
    def _take(conversation: Conversation, stored: StoredConversation) -> None:
        with conversation.lock:
            conversation.turns[:] = [_turn(turn) for turn in stored.turns if turn.state != "answering"]
            conversation.title, conversation.unanswered = stored.title, stored.unanswered

    def save_documents(self, conversation: Conversation) -> None:
        """Store which documents it has, and which of them were read.

        Raises:
            UserFacingError: if that cannot be stored.
        """
        if conversation.is_kept:
            with conversation.lock:
                documents = [(one, one in conversation.read_ids) for one in conversation.document_ids]
            self._store.set_documents(conversation.conversation_id, documents)

    def all_turns(self, conversation: Conversation) -> list[Turn]:
        """The turns of all branches that are stored, in the order they were asked."""
        if not conversation.is_kept:
            return []
        return [_turn(turn) for turn in self._store.all_turns(conversation.conversation_id)]

    def select_turn(self, conversation: Conversation, turn_id: str) -> None:
        """Make the branch of that turn the active one.

        Raises:
            UserFacingError: if there is none, or that cannot be stored.
        """
        if not turn_id.isdecimal():
            raise UserFacingError("There is no such answer in this conversation. Reload the page.")
        self._store.select_turn(conversation.conversation_id, int(turn_id))
        self.refresh(conversation)

    def begin_turn(self, conversation: Conversation, question: str, kept_turns: int) -> TurnRecord:
        """Store that a question is asked after the first `kept_turns` turns, which become the active branch."""
        record = TurnRecord(self, conversation, question, kept_turns)
        record.begin()
        return record


class TurnRecord:
    """One turn on its way into the store.

    Args:
        conversations: its store.
        conversation: whose it is; its turns become the first `kept_turns` until the answer has ended.
        question: as asked.
        kept_turns: as above.

    Attributes:
        turn_id: in the store, or one of its own if it could not be stored.
        so_far: what the next saving saves; set by whoever makes the answer.
        warning: a sentence on what could not be saved; "" if all was.
    """

    def __init__(
        self, conversations: StoredConversations, conversation: Conversation, question: str, kept_turns: int
    ) -> None:
        self.turn_id = f"-{uuid.uuid4().hex}"
        self.so_far = AnswerSoFar()
        self.warning = ""
        self._conversations = conversations
        self._store = conversations._store
        self._conversation = conversation
        self._question = question
        with conversation.lock:
            self._former_turns = list(conversation.turns)
            del conversation.turns[kept_turns:]
        self._stored_id: int | None = None
        self._saved = AnswerSoFar()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._save_now_and_then, name="turn-saving", daemon=True)

    def begin(self) -> None:
        """Store the question; a failure is in `warning`."""
        conversation = self._conversation
        # It is being answered, also for whoever looks before the answer has begun to run.
        conversation.unanswered = ""
        if not conversation.is_kept:
            reason = conversation.unkept_reason
            self.warning = reason and f"This answer is not saved: {reason}"
        elif self._try_to_begin():
            self._thread.start()

    def _try_to_begin(self) -> bool:
        conversation = self._conversation
        try:
            parent_id = self._store_earlier_turns()
            stored_id = self._store.begin_turn(conversation.conversation_id, parent_id, self._question)
        except UserFacingError as error:
            self.warning = f"This answer is not saved: {error}"
            return False
        self._stored_id, self.turn_id, self.warning = stored_id, str(stored_id), ""
        return True

    def _store_earlier_turns(self) -> int | None:
        """Store what could not be stored when it was made, the disk may have room again; returns the last turn's id."""
        conversation, parent_id = self._conversation, None
        for index, turn in enumerate(conversation.turns):
            if not turn.is_stored:
                stored_id = self._store.begin_turn(conversation.conversation_id, parent_id, turn.question)
                report = turn.report and turn.report.to_stored()
                self._store.finish_turn(stored_id, turn.answer, report, turn.answer_token_ids, turn.state)
                with conversation.lock:
                    turn = conversation.turns[index] = replace(turn, turn_id=str(stored_id))
            parent_id = int(turn.turn_id)
        return parent_id

    def _save_now_and_then(self) -> None:
        while not self._ended.wait(_SAVE_INTERVAL_S):
            self._save()

    def _save(self) -> None:
        so_far = self.so_far
        if so_far is self._saved:
            return
        try:
            self._store.save_partial(self._stored_id, so_far.answer, so_far.token_ids, so_far.thinking)
        except UserFacingError:
            # Tried again with the next words; whether the whole answer can be saved is told at its end.
            return
        self._saved = so_far

    def finish(self, report: AnswerReport | None, state: TurnState) -> None:
        """The answer has ended with `so_far`: store it, and make it a turn of the conversation."""
        self._stop_saving()
        conversation, so_far = self._conversation, self.so_far
        if conversation.is_kept and (self._stored_id is not None or self._try_to_begin()):
            try:
                values = report and report.to_stored()
                self._store.finish_turn(
                    self._stored_id, so_far.answer, values, so_far.token_ids, state, so_far.thinking
                )
            except UserFacingError as error:
                self.warning = f"This answer is not saved as a whole: {error}"
            else:
                # What cannot be read back is still in memory.
                with suppress(UserFacingError):
                    self._conversations.refresh(conversation)
        self._ensure_turn(report, state)

    def _ensure_turn(self, report: AnswerReport | None, state: TurnState) -> None:
        conversation, so_far = self._conversation, self.so_far
        with conversation.lock:
            if not any(turn.turn_id == self.turn_id for turn in conversation.turns):
                conversation.turns.append(
                    Turn(self._question, so_far.answer, report, so_far.token_ids, self.turn_id, state)
                )
                conversation.unanswered = ""

    def discard(self) -> None:
        """No word was said: the conversation is as it was before, but for its unanswered question."""
        self._stop_saving()
        conversation, former = self._conversation, self._former_turns
        if self._stored_id is not None:
            try:
                self._store.discard_turn(self._stored_id)
            except UserFacingError as error:
                self.warning = f"That this question was not answered is not saved: {error}"
        with conversation.lock:
            conversation.turns[:] = former
            conversation.unanswered = self._question

    def _stop_saving(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()


def _turn(stored: StoredTurn) -> Turn:
    report = AnswerReport.from_stored(stored.report) if stored.report else None
    return Turn(
        stored.question,
        stored.answer,
        report,
        stored.token_ids,
        str(stored.turn_id),
        stored.state,
        tuple(map(str, stored.siblings)),
        None if stored.parent_id is None else str(stored.parent_id),
    )
