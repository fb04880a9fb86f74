"""Which sessions hold KV pages, and which of them to empty when the pool is full.

Least recently used goes first; sessions of the running job are never touched. A job may pause and go on: what it uses
is idle meanwhile. Knows nothing of what a session does.
"""

from __future__ import annotations

from typing import Protocol


class Evictable(Protocol):
    @property
    def context_tokens(self) -> int: ...

    def truncate(self, length_tokens: int) -> None: ...


class SessionRegistry:
    """Sessions by last use."""

    def __init__(self) -> None:
        self._job = 0
        self._uses = 0
        self._last_job: dict[Evictable, tuple[int, int]] = {}  # least recently used first

    @property
    def sessions(self) -> tuple[Evictable, ...]:
        """All that were used and not forgotten."""
        return tuple(self._last_job)

    @property
    def now(self) -> int:
        """A number that grows with each use."""
        return self._uses

    def begin_job(self, job: int) -> None:
        """From now on only sessions that this job was the last to use, or will use, are in use; or it goes on."""
        self._job = job

    def touch(self, session: Evictable) -> None:
        self._uses += 1
        self._last_job.pop(session, None)
        self._last_job[session] = (self._job, self._uses)

    def forget(self, session: Evictable) -> None:
        self._last_job.pop(session, None)

    def oldest_idle(self) -> tuple[Evictable, int] | None:
        """The session with tokens that has been idle longest, and when it was used."""
        for session, (job, used) in self._last_job.items():
            if job != self._job and session.context_tokens:
                return session, used
        return None
