"""Who is answered next: few at a time, the others in a queue of limited length, and no client ahead of all others.

Clients take turns, each with its oldest request. Used on the server's event loop alone.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque

from app.api.errors import ApiError

_RETRY_AFTER_S = 5


class Admission:
    """Places for requests.

    Args:
        running: so many are answered at a time. The engine does one after the other; the next should be ready for it.
        waiting: so many may wait.
    """

    def __init__(self, running: int = 2, waiting: int = 32) -> None:
        self._places = running
        self._most_waiting = waiting
        # By client, the one whose turn it is first.
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return sum(map(len, self._queues.values()))

    async def enter(self, client: str) -> None:
        """Wait for a place, which must be left again.

        Args:
            client: who asks; requests of one stay in order.

        Raises:
            ApiError: the queue is full.
        """
        if self._places:
            self._places -= 1
            return
        if self.waiting >= self._most_waiting:
            raise ApiError(
                503,
                f"{self.waiting} requests wait already. Try again later.",
                None,
                "queue_full",
                _RETRY_AFTER_S,
            )
        turn = asyncio.get_running_loop().create_future()
        self._queues.setdefault(client, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            else:
                self._forget(client, turn)
            raise

    def leave(self) -> None:
        """Give the place to the next."""
        while self._queues:
            client, queue = self._queues.popitem(last=False)
            turn = queue.popleft()
            if queue:
                self._queues[client] = queue  # behind all others
            if not turn.done():
                turn.set_result(None)
                return
        self._places += 1

    def _forget(self, client: str, turn: asyncio.Future[None]) -> None:
        queue = self._queues.get(client)
        if queue is not None and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._queues[client]
