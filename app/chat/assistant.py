"""The assistant: loads the model once, holds the conversations, and answers in them.

What the page, the server and the terminal talk to; safe to call from any thread. A conversation has one engine session
and does one thing at a time; several conversations take turns in the engine's queue. Knows nothing of Gradio or HTTP.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.chat.answer import AnswerEvent, AnswerOptions, Finished, ModelLoading, Queued
from app.chat.answer_run import AnswerRun, answer_work
from app.chat.conversation import Conversation, Turn
from app.chat.model_loader import LoadedModel, ModelLoader, ModelStatus
from app.chat.open_conversations import OpenConversations
from app.chat.prompt.document_tokens import TokenCount
from app.chat.prompt.plan import ContextUsage, PromptPlan
from app.chat.provenance import page_text
from app.chat.race import RaceEvent, race_events, race_work
from app.chat.telemetry import TelemetryHub
from app.chat.text_stream import TextStream
from app.chat.thought_stream import ThoughtStream
from app.errors import UserFacingError, explain
from app.library import Document, ReadProgress, read_document
from app.settings import AppSettings

if TYPE_CHECKING:
    from quest_core.engine import Cancellation, Engine, Job
    from quest_core.session import Session

# How often a waiting question looks at its place in the queue.
_QUEUE_POLL_S = 0.25
# And one that waits for the model at how far that is.
_LOADING_POLL_S = 0.25


class Assistant:
    """Answers questions about documents.

    Args:
        settings: which model, and how; nothing is loaded before `start_loading` or the first need.

    Attributes:
        settings: as given.
        telemetry: what all answers publish to.
    """

    def __init__(self, settings: AppSettings) -> None:
        self.settings = settings
        self.telemetry = TelemetryHub()
        self._conversations = OpenConversations(self.telemetry.is_watched)
        self._loader = ModelLoader(settings)

    def start_loading(self) -> None:
        """Begin to load the model in a thread; further calls do nothing."""
        self._loader.start()

    def status(self) -> ModelStatus:
        """How far loading has come."""
        return self._loader.status

    def wait_until_ready(self) -> None:
        """Wait for the model, loading it if nobody has begun to.

        Raises:
            UserFacingError: if it cannot be loaded.
        """
        self._loader.wait()

    def open_conversation(self) -> Conversation:
        """A new conversation; one that nobody uses may make room for it.

        Raises:
            UserFacingError: if there is no room, and all are in use.
        """
        conversation, evicted = self._conversations.open()
        self.telemetry.open(conversation.conversation_id)
        if evicted is not None:
            self._release(evicted)
        return conversation

    def conversation(self, conversation_id: str) -> Conversation:
        """The open conversation of that id.

        Raises:
            UserFacingError: if there is none; `ConversationEvicted` if it made room for another.
        """
        return self._conversations.find(conversation_id)

    def close_conversation(self, conversation_id: str) -> None:
        """Cancel what runs in it and free its part of the cache; unknown ids are ignored."""
        conversation = self._conversations.take(conversation_id)
        if conversation is not None:
            self._release(conversation)

    def _release(self, conversation: Conversation) -> None:
        self.cancel(conversation)
        self.telemetry.forget(conversation.conversation_id)
        if self._loader.model is not None:
            try:
                self._loader.model.engine.submit(lambda cancellation: _close_session(conversation))
            except RuntimeError:
                # The engine is closed, and all its sessions with it.
                return

    def add_document(
        self,
        conversation: Conversation,
        path: Path,
        password: str | None = None,
        on_progress: Callable[[ReadProgress], None] | None = None,
    ) -> Document:
        """Read a document into a conversation; one that is there already, under the same name, is not added again.

        Returns:
            The document, or the one that was there.

        Raises:
            UserFacingError: one of `app.library`'s errors, or the conversation is busy.
        """
        with self._conversations.kept_open(conversation):
            document = read_document(path, password, on_progress)
        with self._occupy(conversation):
            for present in conversation.documents:
                if (present.content_id, present.name) == (document.content_id, document.name):
                    return present
            document = replace(document, document_id=_unused_id(document, conversation.documents))
            conversation.documents.append(document)
        return document

    def remove_document(self, conversation: Conversation, document_id: str) -> None:
        """Take a document out of a conversation.

        Raises:
            UserFacingError: if the conversation is busy.
        """
        with self._occupy(conversation):
            conversation.documents[:] = [
                document for document in conversation.documents if document.document_id != document_id
            ]

    def truncate_turns(self, conversation: Conversation, count: int) -> None:
        """Keep the first `count` turns: to clear, to regenerate, to ask anew from an earlier point.

        Raises:
            UserFacingError: if the conversation is busy.
        """
        with self._occupy(conversation):
            del conversation.turns[max(0, count) :]
            conversation.unanswered = ""

    def clear_turns(self, conversation: Conversation) -> int:
        """Forget all turns, but so that `restore_turns` can bring them back; returns how many there were.

        Raises:
            UserFacingError: if the conversation is busy.
        """
        with self._occupy(conversation):
            conversation.cleared_turns[:] = conversation.turns
            conversation.turns.clear()
            self.telemetry.set_aside(conversation.conversation_id)
        return len(conversation.cleared_turns)

    def restore_turns(self, conversation: Conversation) -> None:
        """Bring back what `clear_turns` has taken, unless the conversation has begun anew.

        Raises:
            UserFacingError: if it has, or the conversation is busy.
        """
        with self._occupy(conversation):
            if conversation.turns or not conversation.cleared_turns:
                raise UserFacingError("The cleared conversation is gone: a new one has begun.")
            conversation.turns[:] = conversation.cleared_turns
            conversation.cleared_turns.clear()
            self.telemetry.bring_back(conversation.conversation_id)

    def context_usage(self, conversation: Conversation, options: AnswerOptions | None = None) -> ContextUsage:
        """What fills the window before the next question; waits for the model."""
        options = options or AnswerOptions()
        model = self._loader.wait()
        room_tokens = options.max_new_tokens + model.thinking.room_tokens
        documents, turns, plan = list(conversation.documents), list(conversation.turns), conversation.plan
        usage = model.planner.usage(documents, turns, options.system_prompt, room_tokens)
        is_last_turn = turns and plan is not None and list(plan.documents) == documents
        return usage.with_passages_of(plan) if is_last_turn else usage

    def document_tokens(self, conversation: Conversation, document_id: str) -> TokenCount | None:
        """Tokens of one document's text; None if it is not in the conversation, or the model is not ready to count."""
        model = self._loader.model
        for document in list(conversation.documents):
            if model is not None and document.document_id == document_id:
                return model.planner.document_tokens(document)
        return None

    def answer(self, conversation: Conversation, question: str, options: AnswerOptions) -> Iterator[AnswerEvent]:
        """Answer a question; its turn is appended at the end, also if it was cancelled with what there is.

        An answer without a word leaves no turn, and its question in `Conversation.unanswered`.

        Yields:
            `ModelLoading` until the model is there, `Queued` while others are served, `PrefillEvent`, `TokenEvent`, and
            last `Finished`. Closing the generator cancels the answer.

        Raises:
            UserFacingError: empty question, options out of range, window full, conversation busy, model failed.
        """
        with self._occupy(conversation):
            conversation.unanswered = question
            yield from self._loading_events(conversation)
            model = self._loader.wait()
            plan = self._plan(model, conversation, question, options)
            quest = options.quest_config(model.engine.page_size, self.settings.dense_layers)
            sampling = options.sampling_config(model.stop_token_ids)
            thinking = model.thinking
            text = ThoughtStream(
                model.tokenizer.decode, options.stop, options.max_new_tokens, thinking.max_tokens, thinking.opened
            )
            work = answer_work(lambda: _session(conversation, model.engine), plan, quest, sampling, text, thinking)
            run = AnswerRun(
                model.engine,
                plan,
                options,
                lambda event: self.telemetry.publish(conversation.conversation_id, event),
            )
            conversation.plan, conversation.generated = plan, run.token_ids
            report = None
            try:
                with closing(self._run_job(conversation, model.engine, work)) as events:
                    for event in events:
                        yield run.queued(event.jobs_ahead) if isinstance(event, Queued) else run.take(event)
                report = run.finish()
            except GeneratorExit:
                # Nobody listens any more, but what was said belongs to the conversation.
                report = run.finish()
                raise
            finally:
                if report is None:
                    run.fail()
                elif not report.is_empty:
                    conversation.turns.append(Turn(question, report.answer, report, run.answer_token_ids))
                    conversation.unanswered = ""
        yield Finished(report)

    def race(self, conversation: Conversation, question: str, options: AnswerOptions) -> Iterator[RaceEvent]:
        """Answer a question twice, with dense attention and with Quest; the conversation stays as it is.

        Yields:
            `ModelLoading`, `Queued`, `RacePrefill`, `RaceToken` of either side, and last `RaceFinished`. Closing the
            generator cancels.

        Raises:
            UserFacingError: as `answer`.
        """
        with self._occupy(conversation):
            yield from self._loading_events(conversation)
            model = self._loader.wait()
            plan = self._plan(model, conversation, question, options)
            if options.seed is None:
                # Both sides must draw alike, or chance alone would part them.
                options = replace(options, seed=random.getrandbits(31))
            # Both sides show all that they draw, a thought too.
            longest = replace(options, max_new_tokens=options.max_new_tokens + model.thinking.room_tokens)
            layout = model.engine.page_size, self.settings.dense_layers
            work = race_work(
                lambda: _session(conversation, model.engine),
                plan.token_ids,
                replace(options, attention="dense").quest_config(*layout),
                replace(options, attention="quest").quest_config(*layout),
                longest.sampling_config(model.stop_token_ids),
                lambda: TextStream(model.tokenizer.decode, options.stop),
            )
            with closing(self._run_job(conversation, model.engine, work)) as events:
                yield from race_events(events)

    def _loading_events(self, conversation: Conversation) -> Iterator[ModelLoading]:
        """Wait for the model and tell how far it is, each step once.

        Raises:
            UserFacingError: if it was cancelled meanwhile.
        """
        self._loader.start()
        told = None
        while (status := self._loader.status).stage in ("starting", "loading"):
            if conversation.cancelled.wait(_LOADING_POLL_S if status.message == told else 0):
                raise UserFacingError("Stopped before the model was loaded. Ask again when it is.")
            if status.message != told:
                told = status.message
                yield ModelLoading(told)

    def cancel(self, conversation: Conversation) -> None:
        """Stop what runs in a conversation at its next chance; does nothing if nothing does."""
        conversation.cancelled.set()
        job = conversation.job
        if job is not None:
            job.cancel()

    def page_text(self, conversation_id: str, page: int) -> dict[str, Any]:
        """What KV page `page` of a conversation's last answer holds; see `app.chat.provenance.page_text`.

        Raises:
            UserFacingError: if the conversation is closed, has had no answer, or has no such page.
        """
        conversation = self.conversation(conversation_id)
        model = self._loader.model
        if conversation.plan is None or model is None:
            raise UserFacingError("Nothing has been read yet. Ask a question first.")
        return page_text(
            conversation.plan, list(conversation.generated), page, model.engine.page_size, model.tokenizer.decode
        )

    def close(self) -> None:
        """Cancel everything and let the engine go."""
        self._conversations.clear()
        self._loader.close()

    def _plan(
        self, model: LoadedModel, conversation: Conversation, question: str, options: AnswerOptions
    ) -> PromptPlan:
        if not question.strip():
            raise UserFacingError("The question is empty. Type one.")
        room_tokens = options.max_new_tokens + model.thinking.room_tokens
        return model.planner.plan(
            conversation.documents, conversation.turns, question, options.system_prompt, room_tokens
        )

    @contextmanager
    def _occupy(self, conversation: Conversation) -> Iterator[None]:
        """Keep a conversation to oneself."""
        self.conversation(conversation.conversation_id)
        if not conversation.busy.acquire(blocking=False):
            raise UserFacingError("This conversation is still answering. Stop the answer, or wait for it.")
        try:
            # Once more: it may have made room for another in between.
            self.conversation(conversation.conversation_id)
            conversation.cancelled.clear()
            yield
        finally:
            conversation.busy.release()

    def _run_job(
        self, conversation: Conversation, engine: Engine, work: Callable[[Cancellation], Iterator[Any]]
    ) -> Iterator[Any]:
        """Submit work; yield `Queued` while it waits, then what it yields. Cancels it if closed."""
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


def _unused_id(document: Document, present: Sequence[Document]) -> str:
    """An id that none of the documents has, also if one has the same content."""
    taken = {other.document_id for other in present}
    later_ids = (f"{document.content_id}-{number}" for number in count(2))
    return next(own_id for own_id in chain([document.content_id], later_ids) if own_id not in taken)


def _job_events(job: Job, cancelled: threading.Event) -> Iterator[Any]:
    from quest_core.paged_kv_cache import PoolExhausted
    from quest_core.sampling import NotANumberError

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
        except (PoolExhausted, MemoryError) as error:
            raise UserFacingError(
                "The memory for KV pages is full. Close other conversations, or start Quest Chat with a smaller "
                "--context-tokens."
            ) from error
        except NotANumberError as error:
            raise UserFacingError(str(error)) from error
        except Exception as error:
            if _is_out_of_memory(error):
                raise UserFacingError(
                    "There is not enough memory to work in. Close what else uses it, or start Quest Chat with a "
                    "smaller --context-tokens."
                ) from error
            raise explain(error, "The answer") from error
        yield event


def _is_out_of_memory(error: Exception) -> bool:
    """Whether torch could not get memory; on the CPU only its words tell."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _session(conversation: Conversation, engine: Engine) -> Session:
    """The conversation's session, made on first use; call inside a job."""
    if conversation.session is None:
        conversation.session = engine.new_session()
    return conversation.session


def _close_session(conversation: Conversation) -> Iterator[None]:
    if conversation.session is not None:
        conversation.session.close()
        conversation.session = None
    yield
