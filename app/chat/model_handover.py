"""What becomes of conversations and completions when another model takes over.

Their text stays; what the former model has made of it goes: sessions, prompts, what it has read. The next question, and
reading ahead, begin anew with the other. Knows nothing of how models are loaded or chosen.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from app.chat.completions import Completion, Completions
from app.chat.conversations.conversation import Conversation
from app.chat.reading.background_reading import BackgroundReading
from app.errors import UserFacingError

if TYPE_CHECKING:
    from app.models.model_loader import LoadedModel

# An answer stops at its next token or chunk of its prompt; a race or a search in another language as well.
STOP_S = 60.0
_POLL_S = 0.05


class ModelHandover:
    """Conversations, as far as a change of the model concerns them.

    Args:
        present: the conversations in memory.
        cancel: stops what runs in one.
        completions: those of other programs.
        reading: what reads ahead.
        forget_reads: has it noted that no conversation's documents were read.
    """

    def __init__(
        self,
        present: Callable[[], list[Conversation]],
        cancel: Callable[[Conversation], None],
        completions: Completions,
        reading: BackgroundReading,
        forget_reads: Callable[[], None],
    ) -> None:
        self._present = present
        self._cancel = cancel
        self._completions = completions
        self._reading = reading
        self._forget_reads = forget_reads

    def users(self, model: LoadedModel) -> list[Conversation | Completion]:
        """Conversations in which something runs that has begun with a model, and completions that it makes."""
        return [*self._conversations(model), *self._completions.users(model)]

    def _conversations(self, model: LoadedModel) -> list[Conversation]:
        return [conversation for conversation in self._present() if conversation.model is model]

    def stop(self, model: LoadedModel) -> bool:
        """Stop what runs with a model, and wait for its end; False if that takes too long."""
        end = time.monotonic() + STOP_S
        while self.users(model):
            if time.monotonic() > end:
                return False
            for conversation in self._conversations(model):
                self._cancel(conversation)
            self._completions.stop(model)
            time.sleep(_POLL_S)
        return True

    def pause(self) -> None:
        """Stop reading ahead; whoever has the model then says `go_on`."""
        self._reading.start_over()

    def go_on(self) -> None:
        """Read ahead with the model that is there."""
        self._reading.want_all()

    def begin_anew(self) -> None:
        """Forget all that a model has made of the conversations; its engine must be closed."""
        self._reading.start_over()
        self._completions.forget()
        for conversation in self._present():
            with conversation.lock:
                conversation.session = conversation.plan = None
                conversation.generated = []
                conversation.read_ids.clear()
        # On a full disk, say: then they count as read until they are, no more.
        with suppress(UserFacingError):
            self._forget_reads()
