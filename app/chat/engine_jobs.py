"""A conversation's work on the engine's thread: submitted, waited for, cancelled, and its session.

Knows nothing of what the work is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from app.chat.answers.answer import Queued
from app.chat.conversations.conversation import Conversation
from app.chat.engine_failures import explain_engine_failure
from app.errors import UserFacingError

if TYPE_CHECKING:
    from quest_core.engine import Cancellation, Engine
    from quest_core.jobs import Job
    from quest_core.session import Session

# How often a waiting question looks at its place in the queue.
_QUEUE_POLL_S = 0.25


def run_job(conversation: Conversation, engine: Engine, work: Callable[[Cancellation], Iterator[Any]]) -> Iterator[Any]:
    """Submit work; yield `Queued` while it waits, then what it yields. Cancels it if closed.

    Raises:
        UserFacingError: for whatever stops it.
    """
    try:
        job = engine.submit(work)
    except RuntimeError as error:
        raise UserFacingError("Quest Chat is closing. Start it again.") from error
    conversation.job = job
    if conversation.cancelled.is_set():
        job.cancel()
    try:
        yield from _job_events(job, conversation.cancelled)
    finally:
        conversation.job = None
        # It need not be waited for: the next job of this conversation comes after it.
        job.cancel()


def _job_events(job: Job, cancelled: threading.Event) -> Iterator[Any]:
    jobs_ahead = job.jobs_ahead
    if jobs_ahead:
        yield Queued(jobs_ahead)
    while True:
        try:
            event = job.next_event(_QUEUE_POLL_S if jobs_ahead else None)
        except TimeoutError:
            if (now_ahead := job.jobs_ahead) != jobs_ahead:
                jobs_ahead = now_ahead
                if jobs_ahead:
                    yield Queued(jobs_ahead)
            if jobs_ahead and cancelled.is_set():
                return
            continue
        except StopIteration:
            return
        except Exception as error:
            raise explain_engine_failure(error, "The answer") from error
        yield event


def session_of(conversation: Conversation, engine: Engine) -> Session:
    """The conversation's session, made on first use; call inside a job."""
    if conversation.session is None:
        conversation.session = engine.new_session()
    return conversation.session


def close_session(conversation: Conversation, engine: Engine) -> None:
    """Give the conversation's part of the cache back, in the engine's own time."""

    def work(cancellation: Cancellation) -> Iterator[None]:
        if conversation.session is not None:
            conversation.session.close()
            conversation.session = None
        yield

    try:
        engine.submit(work)
    except RuntimeError:
        # The engine is closed, and all its sessions with it.
        return
