"""The races of all conversations: begun, stopped, and the last few of each kept for replay.

They are kept in memory, and go with the program. Knows nothing of the engine or of HTTP.
"""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from app.chat.conversations.conversation import Conversation
from app.errors import UserFacingError
from app.race.kept_record import RaceRequest
from app.race.race_record import RaceRecord
from app.race.running_race import RunningRace
from app.race.sweep_record import SweepRecord

# A race of a long answer over many document pages takes a megabyte or two.
KEPT_OF_A_CONVERSATION = 6
KEPT_IN_ALL = 24


class Races:
    """Begins and keeps races.

    Args:
        make: the events of a race or a sweep.
        occupy: keeps a conversation to oneself; refuses where it is busy.
        release: the end of that.
        cancel: stops what runs in a conversation.
        tell: tells the tabs of a conversation.
    """

    def __init__(
        self,
        make: Callable[[Conversation, RaceRequest], Iterator[Any]],
        occupy: Callable[[Conversation], Conversation],
        release: Callable[[Conversation], None],
        cancel: Callable[[Conversation], None],
        tell: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self._make = make
        self._occupy = occupy
        self._release = release
        self._cancel = cancel
        self._tell = tell
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[str, RunningRace]] = OrderedDict()  # by race id, with the conversation's

    def start(self, conversation: Conversation, request: RaceRequest) -> RunningRace:
        """Begin a race or, with budgets, a sweep. It goes on until its end or `stop`, whoever watches.

        Raises:
            UserFacingError: if the conversation is answering, or racing already.
        """
        conversation = self._occupy(conversation)
        try:
            conversation_id = conversation.conversation_id
            conversation.documents_in_use = tuple(conversation.document_ids)
            record = (SweepRecord if request.budgets else RaceRecord)(uuid.uuid4().hex, request)
            race = RunningRace(
                record,
                lambda: self._make(conversation, request),
                lambda event: self._tell(conversation_id, event),
                lambda: self._release(conversation),
            )
            self._keep(conversation_id, race)
            race.start()
        except BaseException:
            self._release(conversation)
            raise
        return race

    def stop(self, conversation: Conversation, race_id: str) -> None:
        """Stop a race; one that has ended stays as it is.

        Raises:
            UserFacingError: if there is no such race.
        """
        if not self.find(conversation.conversation_id, race_id).record.ended:
            self._cancel(conversation)

    def find(self, conversation_id: str, race_id: str) -> RunningRace:
        """A race that is kept.

        Raises:
            UserFacingError: if there is none of that id in the conversation.
        """
        with self._lock:
            kept = self._kept.get(race_id)
        if kept is None or kept[0] != conversation_id:
            raise UserFacingError("This race is not kept any more. Only the last few are.")
        return kept[1]

    def of(self, conversation_id: str) -> list[RunningRace]:
        """A conversation's races that are kept, newest first."""
        with self._lock:
            return [race for one, race in reversed(self._kept.values()) if one == conversation_id]

    def is_running(self, conversation_id: str) -> bool:
        """Whether it is a race that keeps a conversation busy."""
        return any(not race.record.ended for race in self.of(conversation_id))

    def forget(self, conversation_id: str) -> None:
        """Drop the races of a conversation."""
        with self._lock:
            for race_id in [race_id for race_id, (one, _) in self._kept.items() if one == conversation_id]:
                del self._kept[race_id]

    def _keep(self, conversation_id: str, race: RunningRace) -> None:
        with self._lock:
            self._kept[race.record.race_id] = (conversation_id, race)
            own = [race_id for race_id, (one, _) in self._kept.items() if one == conversation_id]
            for race_id in own[:-KEPT_OF_A_CONVERSATION]:
                del self._kept[race_id]
            while len(self._kept) > KEPT_IN_ALL:
                self._kept.popitem(last=False)
