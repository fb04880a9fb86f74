"""The record of a turn whose answer goes on: the same row of the store, begun again.

Until its end the turn is none of the conversation's, as any that is being answered; without a word more it is put back
as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.chat.conversations.conversation import Conversation
from app.chat.conversations.stored_conversations import AnswerSoFar, TurnRecord
from app.errors import UserFacingError

if TYPE_CHECKING:
    from app.chat.conversations.stored_conversations import StoredConversations


class ContinuedTurn(TurnRecord):
    """The last turn of a conversation on its way into the store once more.

    Args:
        conversations: its store.
        conversation: whose last turn it is.
    """

    def __init__(self, conversations: StoredConversations, conversation: Conversation) -> None:
        self.turn = conversation.turns[-1]
        super().__init__(conversations, conversation, self.turn.question, len(conversation.turns) - 1)
        self.turn_id = self.turn.turn_id
        thinking = self.turn.report.thinking if self.turn.report is not None else ""
        self.so_far = self._saved = AnswerSoFar(self.turn.answer, self.turn.answer_token_ids, thinking)

    def begin(self) -> None:
        """Say in the store that it is being answered again; a failure is in `warning`."""
        conversation = self._conversation
        if not conversation.is_kept or not self.turn.is_stored:
            return
        self._stored_id = int(self.turn_id)
        try:
            self._store.reopen_turn(self._stored_id)
        except UserFacingError as error:
            # What is added is stored at the end, if there is room again.
            self.warning = f"What is added to this answer is not saved yet: {error}"
            return
        self._thread.start()

    def discard(self) -> None:
        """No word was added: the turn is what it was before."""
        self._stop_saving()
        turn = self.turn
        if self._stored_id is not None:
            report = turn.report and turn.report.to_stored()
            try:
                self._store.finish_turn(self._stored_id, turn.answer, report, turn.answer_token_ids, turn.state)
            except UserFacingError as error:
                self.warning = f"That this answer did not go on is not saved: {error}"
        with self._conversation.lock:
            self._conversation.turns[:] = self._former_turns
