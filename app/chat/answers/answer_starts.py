"""How an answer begins: a question that is asked, or an answer that goes on from where it was cut.

From there on the answer makes itself in a thread (`app.chat.answers.running_answer`), as `app.chat.answers.answering`
says.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from app.chat.answers.answer import AnswerOptions
from app.chat.answers.answering import Answering
from app.chat.answers.begun_answer import check_can_go_on
from app.chat.answers.continued_turn import ContinuedTurn
from app.chat.answers.running_answer import RunningAnswer
from app.chat.conversations.conversation import Conversation, Turn
from app.chat.conversations.conversation_access import ConversationAccess
from app.chat.conversations.stored_conversations import StoredConversations, TurnRecord
from app.errors import UserFacingError


class AnswerStarts:
    """Begins answers.

    Args:
        access: keeps a conversation for its answer.
        stored: keeps the turns.
        answering: makes the answers.
        on_change: told of a conversation in which an answer has begun.
    """

    def __init__(
        self,
        access: ConversationAccess,
        stored: StoredConversations,
        answering: Answering,
        on_change: Callable[[Conversation], None],
    ) -> None:
        self._access = access
        self._stored = stored
        self._answering = answering
        self._on_change = on_change

    def ask(
        self, conversation: Conversation, question: str, options: AnswerOptions, after_turn: int | None
    ) -> RunningAnswer:
        """Begin to answer a question; see `Assistant.ask`."""
        self._answering.check(question, options)
        conversation = self._access.occupy(conversation)
        try:
            turns = len(conversation.turns)
            kept_turns = turns if after_turn is None else min(max(0, after_turn), turns)
            conversation.options = options
            conversation.documents_in_use = tuple(conversation.document_ids)
            record = self._stored.begin_turn(conversation, question, kept_turns)
            running = self._begin(conversation, record, question, options)
        except BaseException:
            self._access.release(conversation)
            raise
        self._on_change(conversation)
        return running

    def continue_answer(self, conversation: Conversation, turn_id: str, options: AnswerOptions) -> RunningAnswer:
        """Let the last answer go on; see `Assistant.continue_answer`."""
        conversation = self._access.occupy(conversation)
        try:
            turn = conversation.turns[-1] if conversation.turns else None
            if turn is None or turn.turn_id != turn_id:
                raise UserFacingError("Only the last answer can go on. Ask a further question instead.")
            check_can_go_on(turn)
            self._answering.check(turn.question, options)
            conversation.documents_in_use = tuple(conversation.document_ids)
            record = ContinuedTurn(self._stored, conversation)
            record.begin()
            running = self._begin(conversation, record, turn.question, options, turn)
        except BaseException:
            self._access.release(conversation)
            raise
        self._on_change(conversation)
        return running

    def _begin(
        self,
        conversation: Conversation,
        record: TurnRecord,
        question: str,
        options: AnswerOptions,
        begun_turn: Turn | None = None,
    ) -> RunningAnswer:
        release, answer = partial(self._access.release, conversation), self._answering.answer
        running = RunningAnswer(
            question,
            record.turn_id,
            lambda _: answer(conversation, record, question, options, release, begun_turn),
            "" if begun_turn is None else begun_turn.answer,
        )
        conversation.running = running
        running.start()
        return running
