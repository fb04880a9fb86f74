"""Reading ahead: the model reads a conversation's documents before anybody asks.

Each conversation that has something to read gets a job of low priority for the beginning that all its prompts share; a
question goes first, in any conversation, and one in the same conversation takes over what was read. Tells how far each
document is. Knows nothing of answers, tabs or files.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from app.chat.answers.answer_work import kept_prefixes
from app.chat.conversations.conversation import Conversation
from app.chat.engine_failures import explain_engine_failure
from app.chat.prompt.plan import DocumentEnd, ReadingPlan
from app.chat.reading.prefill_timer import PrefillTimer
from app.library import Document
from app.library.library_entry import LibraryEntry
from app.models.model_loader import LoadedModel, ModelLoader

if TYPE_CHECKING:
    from quest_core.engine import Cancellation, Engine
    from quest_core.jobs import Job
    from quest_core.session_events import PrefillProgress

# A chunk of a prefill takes no longer, even on a busy machine.
_STOP_S = 20.0

ReadingStage = Literal["text", "waiting", "model", "read", "passages", "failed"]


@dataclass(frozen=True)
class ReadingState:
    """How far a document of a conversation is.

    Args:
        share: of the stage, 0 to 1; 1 where there is nothing left to do, and 0 where nobody can say.
        remaining_s: until the document is read; None while nobody can say.
        stage: "text": its text is being taken out of the file; "waiting": for the model to be loaded, or for other
            work; "model": the model reads it; "read": all is done; "passages": with the conversation's other
            documents it is longer than the window, so that each question is given passages; "failed": see `message`.
        message: why it waits or has failed, a sentence; "" otherwise.
    """

    share: float
    remaining_s: float | None
    stage: ReadingStage
    message: str = ""


@dataclass
class _Reading:
    """What is read of one conversation.

    Args:
        wanted: whether somebody has to look at it again.
        held: how many answers or races have it to themselves.
        document_ids: those that the present or last job was for.
        done: whether nothing is left to do for them; `failure` says why not.
        passages: whether they are too long to be read as a whole.
        ends, done_tokens, progress, timer: of what is being read, by the job or by an answer.
    """

    conversation: Conversation
    wanted: bool = False
    stopped: bool = False
    held: int = 0
    thread: threading.Thread | None = None
    job: Job | None = None
    document_ids: tuple[str, ...] = ()
    done: bool = False
    failure: str = ""
    passages: bool = False
    ends: tuple[DocumentEnd, ...] = ()
    done_tokens: int = 0
    progress: PrefillProgress | None = None
    timer: PrefillTimer = field(default_factory=PrefillTimer)


class BackgroundReading:
    """Reads ahead in conversations.

    Args:
        loader: of the model; nothing is read before it is loaded, and nothing here loads it.
        readable: the documents of a conversation that can be read now, in order; calls only what is quick.
        plan: what the next prompt of a conversation begins with, given these documents; None if that is not known.
        on_read: told of documents that were read, in their conversation.
        on_change: told when a state has changed.
        on_timed: told what a reading has taken, as it ends.
    """

    def __init__(
        self,
        loader: ModelLoader,
        readable: Callable[[Conversation], list[Document]],
        plan: Callable[[LoadedModel, Conversation, list[Document]], ReadingPlan | None],
        on_read: Callable[[Conversation, Iterable[str]], None],
        on_change: Callable[[], None],
        on_timed: Callable[[PrefillTimer], None] = lambda timer: None,
    ) -> None:
        self._loader = loader
        self._readable = readable
        self._plan = plan
        self._on_read = on_read
        self._on_change = on_change
        self._on_timed = on_timed
        self._lock = threading.Lock()
        self._readings: dict[Conversation, _Reading] = {}
        self._closed = False

    def want(self, conversation: Conversation) -> None:
        """Look at a conversation's documents and read what is new; returns at once."""
        with self._lock:
            if self._closed or conversation.is_deleted:
                return
            if not conversation.document_ids and conversation not in self._readings:
                return
            reading = self._readings.setdefault(conversation, _Reading(conversation))
            if reading.done and reading.document_ids == tuple(conversation.document_ids):
                return
            reading.wanted = True
            self._start(reading)

    def _start(self, reading: _Reading) -> None:
        """Give it a thread if it is to have one; call with the lock."""
        if reading.thread is None and reading.wanted and not reading.held and not reading.stopped:
            if self._loader.model is None:
                return  # wanted again when it is there
            reading.thread = threading.Thread(target=self._run, args=(reading,), name="read-ahead", daemon=True)
            reading.thread.start()

    def want_all(self) -> None:
        """Look at all conversations again: the model is loaded, or a document's text has come."""
        with self._lock:
            conversations = list(self._readings)
        for conversation in conversations:
            self.want(conversation)

    @contextmanager
    def held(self, conversation: Conversation) -> Iterator[None]:
        """An answer reads meanwhile: stop here, what was read is kept."""
        with self._lock:
            reading = self._readings.setdefault(conversation, _Reading(conversation))
            reading.held += 1
            if reading.job is not None:
                reading.job.cancel()
        try:
            yield
        finally:
            with self._lock:
                if (reading := self._readings.get(conversation)) is not None:
                    reading.held -= 1
                    # What has failed may have been the other's doing.
                    reading.failure = ""
            if conversation.is_kept:
                self.want(conversation)

    def forget(self, conversation: Conversation) -> None:
        """Stop reading in a conversation."""
        with self._lock:
            reading = self._readings.pop(conversation, None)
            if reading is not None:
                reading.stopped = True
                if reading.job is not None:
                    reading.job.cancel()

    def stop_reading(self, document_id: str) -> None:
        """Stop whatever reads a document, and wait until nothing does; who wants the rest asks again."""
        threads = []
        with self._lock:
            for reading in self._readings.values():
                if document_id in reading.document_ids:
                    reading.document_ids, reading.done, reading.wanted = (), False, False
                    if reading.job is not None:
                        reading.job.cancel()
                    if reading.thread is not None:
                        threads.append(reading.thread)
        for thread in threads:
            thread.join(_STOP_S)

    def start_over(self) -> None:
        """Stop all, wait until nothing is read, and forget what was: another model comes, which has read nothing."""
        with self._lock:
            readings = list(self._readings.values())
            threads = [reading.thread for reading in readings if reading.thread is not None]
            for reading in readings:
                reading.wanted = False
                if reading.job is not None:
                    reading.job.cancel()
        for thread in threads:
            thread.join(_STOP_S)
        with self._lock:
            for reading in readings:
                reading.document_ids, reading.done, reading.failure, reading.passages = (), False, "", False
                reading.ends, reading.done_tokens, reading.progress = (), 0, None
                reading.timer = PrefillTimer()

    def close(self) -> None:
        """Stop all."""
        with self._lock:
            self._closed = True
            readings = list(self._readings)
        for conversation in readings:
            self.forget(conversation)

    def take_progress(
        self, conversation: Conversation, ends: tuple[DocumentEnd, ...], progress: PrefillProgress
    ) -> None:
        """Note that an answer has read so far; `ends` are those of its prompt."""
        with self._lock:
            reading = self._readings.setdefault(conversation, _Reading(conversation))
            if reading.ends != ends:
                reading.ends, reading.timer = ends, PrefillTimer()
            self._note(reading, progress)
        self._tell(reading)
        if progress.done_tokens >= progress.total_tokens:
            self._on_timed(reading.timer)

    def measured(self) -> PrefillTimer | None:
        """A timer that has seen the model read, in whatever conversation; None if none has."""
        with self._lock:
            timers = [reading.timer for reading in self._readings.values()]
        return next((timer for timer in timers if timer.expected_s(0, 1) is not None), None)

    def state(self, conversation: Conversation, entry: LibraryEntry) -> ReadingState:
        """How far one of a conversation's documents is."""
        if entry.state == "reading":
            return ReadingState(entry.progress or 0.0, None, "text")
        if entry.state != "read":
            return ReadingState(0.0, None, "failed", entry.message)
        document_id = entry.document_id
        with self._lock:
            reading = self._readings.get(conversation)
            if reading is not None:
                if reading.failure and document_id in reading.document_ids:
                    return ReadingState(0.0, None, "failed", reading.failure)
                if reading.passages and document_id in reading.document_ids:
                    return ReadingState(1.0, 0.0, "passages")
                if (state := self._state_within(reading, document_id)) is not None:
                    return state
        if document_id in conversation.read_ids:
            return ReadingState(1.0, 0.0, "read")
        status = self._loader.status
        if status.stage == "failed":
            return ReadingState(0.0, None, "failed", status.message)
        return ReadingState(0.0, None, "waiting", "" if status.stage == "ready" else status.message)

    @staticmethod
    def _state_within(reading: _Reading, document_id: str) -> ReadingState | None:
        """Of a document that is on its way; None if it is not, or has been read."""
        start = 0
        for end in reading.ends:
            if end.document_ids[-1] == document_id:
                if reading.done_tokens <= start or reading.done_tokens >= end.end_token:
                    return None
                share, progress = (reading.done_tokens - start) / (end.end_token - start), reading.progress
                remaining_s = reading.timer.remaining_s(
                    progress.done_tokens, end.end_token, progress.elapsed_s, progress.reused_tokens
                )
                return ReadingState(share, remaining_s, "model")
            start = end.end_token
        return None

    def _run(self, reading: _Reading) -> None:
        while True:
            with self._lock:
                if reading.stopped or reading.held or not reading.wanted:
                    reading.thread = None
                    return
                reading.wanted = False
            try:
                self._read(reading)
            except Exception as error:  # a thread has nobody else to tell
                with self._lock:
                    reading.failure = explain_engine_failure(error, "Reading ahead").message
                self._on_change()

    def _read(self, reading: _Reading) -> None:
        conversation, model = reading.conversation, self._loader.model
        documents = self._readable(conversation)
        document_ids = tuple(document.document_id for document in documents)
        with self._lock:
            if (reading.done or reading.failure) and reading.document_ids == document_ids:
                return
            reading.document_ids, reading.done, reading.failure, reading.passages = document_ids, False, "", False
        if not documents or model is None:
            return
        plan = self._plan(model, conversation, documents)
        if plan is None or plan.is_overview:
            # Each question is given passages: there is nothing to wait for.
            with self._lock:
                reading.passages, reading.done = True, plan is None
            self._on_read(conversation, document_ids)
            self._on_change()
        if plan is None:
            return
        if model.is_remote:
            # Another engine reads them with a question, and keeps what it likes.
            with self._lock:
                reading.done = True
            self._on_read(conversation, document_ids)
            self._on_change()
            return
        self._run_job(reading, model.engine, plan)

    def _run_job(self, reading: _Reading, engine: Engine, plan: ReadingPlan) -> None:
        from quest_core.jobs import Priority

        with self._lock:
            if reading.held or reading.stopped:
                reading.wanted = True
                return
            reading.ends, reading.done_tokens, reading.timer = plan.document_ends, 0, PrefillTimer()
            try:
                job = engine.submit(_reading_work(engine, plan), Priority.BACKGROUND)
            except RuntimeError:
                return  # the engine is closed
            reading.job = job
        try:
            for progress in job:
                with self._lock:
                    self._note(reading, progress)
                self._tell(reading)
                if reading.wanted and tuple(map(_id_of, self._readable(reading.conversation))) != reading.document_ids:
                    # Another document has come: what was read of these is kept, and read on with it.
                    break
        finally:
            job.cancel()
            with self._lock:
                reading.job = None
                reading.done = reading.done_tokens >= plan.document_ends[-1].end_token
                if not reading.done and reading.held:
                    reading.wanted = True
            self._on_timed(reading.timer)
            self._on_change()

    @staticmethod
    def _note(reading: _Reading, progress: PrefillProgress) -> None:
        reading.progress, reading.done_tokens = progress, progress.done_tokens
        reading.timer.remaining_s(
            progress.done_tokens, progress.total_tokens, progress.elapsed_s, progress.reused_tokens
        )

    def _tell(self, reading: _Reading) -> None:
        conversation = reading.conversation
        read = [end.document_ids[-1] for end in reading.ends if end.end_token <= reading.done_tokens]
        if new := [document_id for document_id in read if document_id not in conversation.read_ids]:
            self._on_read(conversation, new)
        self._on_change()


def _reading_work(engine: Engine, plan: ReadingPlan) -> Callable[[Cancellation], Iterator[PrefillProgress]]:
    """What the engine's thread does; the session goes, and what was read is kept as a prefix."""

    def work(cancellation: Cancellation) -> Iterator[PrefillProgress]:
        session, waited_s = engine.new_session(), 0.0
        prefixes = kept_prefixes(plan.document_ends)
        try:
            for progress in session.prefill(plan.token_ids, cancellation, plan.room_tokens, prefixes):
                yielded_at = time.perf_counter()
                yield replace(progress, elapsed_s=progress.elapsed_s - waited_s)
                # A question may have come between; how long that took says nothing about the rest.
                waited_s += time.perf_counter() - yielded_at
        finally:
            session.close()

    return work


def _id_of(document: Document) -> str:
    return document.document_id
