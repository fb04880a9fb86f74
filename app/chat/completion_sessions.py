"""Sessions that completions leave behind, so that the next that begins alike need not read everything again.

Used only inside jobs of one engine. Knows nothing of text.
"""

from __future__ import annotations

from itertools import takewhile
from operator import eq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quest_core.engine import Engine
    from quest_core.session import Session

# So many conversations may alternate.
_KEPT_SESSIONS = 4
# Reading fewer again costs nothing that can be measured; a prefill of an odd number of tokens does, on a CPU.
_LEAST_COMMON_TOKENS = 32
# A session that shares less of its tokens is another conversation, which may come back.
_CONTINUED_SHARE = 3 / 4


class CompletionSessions:
    """A few idle sessions of an engine, least recently used first; the engine may empty them while they are idle."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sessions: list[Session] = []

    def take(self, token_ids: list[int]) -> Session:
        """The session whose tokens a prompt continues, or one that shares what it has in common with another."""
        best, common = None, min(_LEAST_COMMON_TOKENS, len(token_ids) - 1) - 1
        for session in self._sessions:
            length = sum(1 for _ in takewhile(bool, map(eq, session.tokens, token_ids)))
            if length > common:
                best, common = session, length
        if best is None or common < _CONTINUED_SHARE * best.context_tokens:
            self._make_room(best)
            best = self._engine.new_session() if best is None else best.fork()
        else:
            self._sessions.remove(best)
        self._sessions.append(best)
        return best

    def _make_room(self, spared: Session | None) -> None:
        while len(self._sessions) >= _KEPT_SESSIONS:
            oldest = next(session for session in self._sessions if session is not spared)
            self._sessions.remove(oldest)
            oldest.close()
