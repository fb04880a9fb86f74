"""Which sessions hold KV pages, and which of them to empty when the pool is full.

Least recently used goes first; sessions of the running job are never touched. Knows nothing of what a session does.
"""

from __future__ import annotations

from typing import Protocol


class Evictable(Protocol):
    @property
    def context_tokens(self) -> int: ...

    def truncate(self, length_tokens: int) -> None: ...


class SessionRegistry:
    """Sessions by last use, counted in jobs."""

    def __init__(self) -> None:
        self._job_number = 0
        self._last_job: dict[Evictable, int] = {}  # least recently used first

    def begin_job(self) -> None:
        """From now on sessions used before count as idle."""
        self._job_number += 1

    def touch(self, session: Evictable) -> None:
        self._last_job.pop(session, None)
        self._last_job[session] = self._job_number

    def forget(self, session: Evictable) -> None:
        self._last_job.pop(session, None)

    def evict_idle(self) -> bool:
        """Empty the session that has been idle longest; False if there is none."""
        for session, job_number in self._last_job.items():
            if job_number < self._job_number and session.context_tokens:
                session.truncate(0)
                return True
        return False
