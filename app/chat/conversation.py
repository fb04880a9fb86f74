"""A conversation: its documents, its turns, and the engine session that remembers them.

Data and a lock; what happens in it is `app.chat.assistant`'s business.
"""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from app.chat.answer import AnswerReport
from app.chat.prompt.plan import PromptPlan
from app.library import Document

if TYPE_CHECKING:
    from quest_core.engine import Job
    from quest_core.session import Session


@dataclass(frozen=True)
class Turn:
    """A question, its answer, how it was made, and the answer's tokens without its thought and the stop token."""

    question: str
    answer: str
    report: AnswerReport
    answer_token_ids: tuple[int, ...]


@dataclass
class Conversation:
    """One user's thread. Only the assistant changes it.

    Args:
        conversation_id: 32 hexadecimal digits, hard to guess.
        documents: in the order they were added.
        turns: finished ones; none is empty.
        unanswered: the question whose answer is under way or was never begun; "" if there is none.
        cleared_turns: those that were cleared last, until they are brought back.
        busy: held while an answer or a comparison is made.
        cancelled: set by whoever wants the running answer to stop.
        session: the engine's; touched only inside jobs.
        job: the running one.
        plan: prompt of the last answer, finished or not.
        generated: tokens of that answer so far.
    """

    conversation_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    documents: list[Document] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    unanswered: str = ""
    cleared_turns: list[Turn] = field(default_factory=list)
    busy: threading.Lock = field(default_factory=threading.Lock, repr=False)
    cancelled: threading.Event = field(default_factory=threading.Event, repr=False)
    session: Session | None = field(default=None, repr=False)
    job: Job | None = field(default=None, repr=False)
    plan: PromptPlan | None = field(default=None, repr=False)
    generated: list[int] = field(default_factory=list, repr=False)
