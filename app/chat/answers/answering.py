"""How a question is answered: wait for what it needs, plan the prompt, run it on the engine, keep the turn.

What is here runs in the thread of whoever makes an answer or a race, and ends with it; who watches
belongs to `app.chat.answers.running_answer`, and which conversations there are to the assistant.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from app.chat.answers.answer import (
    AnswerEvent,
    AnswerOptions,
    AnswerReport,
    DocumentReading,
    Finished,
    ModelLoading,
    PassagesFound,
    Queued,
    TokenEvent,
)
from app.chat.answers.answer_reads import AnswerReads, ReadBaselines, sentence_reads
from app.chat.answers.answer_run import AnswerRun, answer_work
from app.chat.answers.begun_answer import BegunAnswer, options_to_go_on, window_is_full
from app.chat.answers.page_heat import SelectionLevels, UsualLevels
from app.chat.answers.provenance import scored_pages
from app.chat.answers.question_documents import QUICKLY_READ_TOKENS, QuestionDocuments, choose_documents
from app.chat.answers.question_translation import translated_question
from app.chat.answers.thought_stream import ThoughtStream
from app.chat.conversations.conversation import Conversation, Turn
from app.chat.conversations.stored_conversations import AnswerSoFar, TurnRecord
from app.chat.engine_jobs import run_job, session_of
from app.chat.prompt.plan import PromptPlan, ReadingPlan
from app.chat.prompt.template import ChatTokenizer
from app.chat.reading.background_reading import BackgroundReading
from app.errors import UserFacingError
from app.evidence.evidence import Evidence
from app.library import Document
from app.library.library_entry import LibraryEntry
from app.models.model_loader import LoadedModel, ModelLoader
from app.race.longer_text import window_plan
from app.settings import NEEDS_OUR_CACHE, AppSettings

if TYPE_CHECKING:
    from app.remote.remote_run import RemoteRun

# How often a question that waits for the model, or for a document's text, looks how far that is.
_POLL_S = 0.1


class Answering:
    """Makes answers, and prompts for races.

    Args:
        settings: of the program.
        loader: of the model.
        entries: a conversation's documents as they are listed, in order.
        text: the document of an id, whose text is there.
        evidence: finds passages and citations.
        reading: what reads ahead; stands back while an answer is made.
        publish: takes telemetry of a conversation.
        is_closing: whether the program ends, so that nobody has stopped the answer.
    """

    def __init__(
        self,
        settings: AppSettings,
        loader: ModelLoader,
        entries: Callable[[Conversation], list[LibraryEntry]],
        text: Callable[[Conversation, str], Document],
        evidence: Evidence,
        reading: BackgroundReading,
        publish: Callable[[str, dict[str, Any]], None],
        is_closing: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._loader = loader
        self._entries = entries
        self._text = text
        self._evidence = evidence
        self._reading = reading
        self._publish = publish
        self._is_closing = is_closing
        self._told_failure = ""
        # Of the tokenizer that they were made with.
        self._baselines: tuple[ChatTokenizer, ReadBaselines] | None = None
        self._levels: tuple[ChatTokenizer, SelectionLevels] | None = None

    def check(self, question: str, options: AnswerOptions) -> None:
        """Refuse what could never be answered, before anything waits for it.

        Raises:
            UserFacingError: empty question, options out of range.
        """
        if not question.strip():
            raise UserFacingError("The question is empty. Type one.")
        if self._settings.engine_url and options.attention != AppSettings.attention:
            raise UserFacingError(f"Attention {options.attention!r} {NEEDS_OUR_CACHE}")
        options.quest_config(self._settings.page_size, self._settings.dense_layers)
        options.sampling_config(stop_token_ids=())

    def answer(
        self,
        conversation: Conversation,
        record: TurnRecord,
        question: str,
        options: AnswerOptions,
        release: Callable[[], None],
        begun_turn: Turn | None = None,
    ) -> Iterator[AnswerEvent]:
        """Answer a question; its turn is kept at the end, also if it was cancelled or failed with what there is.

        An answer without a word leaves no turn, and its question in `Conversation.unanswered`.

        Args:
            conversation: occupied by the caller.
            record: of the turn.
            question, options: as asked.
            release: called when the conversation is free again, before the last event.
            begun_turn: whose answer goes on; None begins one.

        Yields:
            `ModelLoading` until the model is there, `DocumentReading` until there is a text, `PassagesFound`, `Queued`
            while others are served, `PrefillEvent`, `TokenEvent`, and last `Finished`.

        Raises:
            UserFacingError: window full, no document can be read, model failed, cancelled before anything was read.
        """
        run = begun = None
        try:
            model = yield from self._wait_for_model(conversation)
            if begun_turn is not None and model.is_remote:
                raise UserFacingError(f"Going on with an answer that was cut {NEEDS_OUR_CACHE} Ask a further question.")
            if begun_turn is not None:
                begun = BegunAnswer.of(begun_turn, _own_token_ids(model, begun_turn), model.thinking)
                options = options_to_go_on(begun_turn, options)
            chosen = yield from self._wait_for_documents(conversation, model, begun)
            # All texts that are there: also of documents that the prompt leaves out.
            texts = self._texts(conversation)
            found = PassagesFound(self._evidence.passages(texts, question))
            yield found
            plan = yield from self._plan(model, conversation, chosen, question, options, begun)
            if model.is_remote:
                from app.remote.remote_run import RemoteRun

                run = RemoteRun(model, plan, options)
                # No page of a cache stands for any of it.
                conversation.plan, conversation.generated = None, []
                yield from self._run_elsewhere(conversation, record, run)
            else:
                run = AnswerRun(
                    model.engine, plan, options, lambda event: self._publish(conversation.conversation_id, event), begun
                )
                conversation.plan, conversation.generated = plan, run.token_ids
                yield from self._run(model, conversation, record, run, plan, options, begun)
            report = replace(
                self._with_evidence(model, run, texts, question, found),
                left_out=chosen.left_out,
                warning=" ".join(filter(None, (*chosen.unusable, self._snapshot_failure(model)))),
            )
            record.so_far = AnswerSoFar(run.answer, run.answer_token_ids, run.thought)
            if report.is_empty:
                record.discard()
            elif report.finish_reason != "cancelled":
                record.finish(report, "finished")
            else:
                record.finish(report, "interrupted" if self._is_closing() else "stopped")
        except BaseException as error:
            failed = None if run is None else run.fail(error)
            if run is not None and run.answer.strip() and (begun is None or run.answer != begun.turn.answer):
                record.finish(failed, "failed")
            else:
                record.discard()
            raise
        finally:
            release()
        yield Finished(replace(report, warning=" ".join(filter(None, (report.warning, record.warning)))))

    def _texts(self, conversation: Conversation) -> list[Document]:
        read = [entry.document_id for entry in self._entries(conversation) if entry.state == "read"]
        return [self._text(conversation, document_id) for document_id in read]

    def _with_evidence(
        self,
        model: LoadedModel,
        run: AnswerRun | RemoteRun,
        documents: list[Document],
        question: str,
        found: PassagesFound,
    ) -> AnswerReport:
        report = replace(run.finish(), passages_found=found.passages)
        if report.is_empty or not documents:
            return report
        support = self._evidence.support(documents, question, report.answer, report.finish_reason == "stop")
        if run.reads is None:
            citations, unsupported = support.citations()
            return replace(report, citations=citations, unsupported=unsupported)
        reads = sentence_reads(run.reads, report.answer, run.answer_token_ids, model.tokenizer.decode)
        citations, unsupported = support.citations(reads)
        pages_read = scored_pages(report.pages_read, run.reads.scores(), documents)
        return replace(report, citations=citations, unsupported=unsupported, pages_read=pages_read)

    def _baselines_of(self, model: LoadedModel) -> ReadBaselines:
        tokenizer = model.tokenizer
        if self._baselines is None or self._baselines[0] is not tokenizer:
            self._baselines = tokenizer, ReadBaselines(lambda text: tokenizer.encode(text).token_ids)
        return self._baselines[1]

    def _levels_of(self, model: LoadedModel) -> SelectionLevels:
        tokenizer = model.tokenizer
        if self._levels is None or self._levels[0] is not tokenizer:
            self._levels = tokenizer, SelectionLevels(
                lambda text: tokenizer.encode(text).token_ids, model.engine.page_size
            )
        return self._levels[1]

    def _run(
        self,
        model: LoadedModel,
        conversation: Conversation,
        record: TurnRecord,
        run: AnswerRun,
        plan: PromptPlan,
        options: AnswerOptions,
        begun: BegunAnswer | None,
    ) -> Iterator[AnswerEvent]:
        thinking = model.thinking
        longest_tokens = options.max_new_tokens + (0 if begun is None else len(begun.answer_token_ids))
        text = ThoughtStream(
            model.tokenizer.decode, options.stop, longest_tokens, thinking.max_tokens, thinking.opened
        )
        if begun is not None:
            begun.push(text)
        work = answer_work(
            lambda: session_of(conversation, model.engine),
            plan,
            options.quest_config(model.engine.page_size, self._settings.dense_layers),
            options.sampling_config(model.stop_token_ids),
            text,
            thinking,
            self._baselines_of(model),
            self._levels_of(model),
            begun,
        )
        with self.reading_held(conversation), closing(run_job(conversation, model.engine, work)) as events:
            for event in events:
                if isinstance(event, AnswerReads):
                    run.reads = event
                    continue
                if isinstance(event, UsualLevels):
                    run.take_usual(event)
                    continue
                if isinstance(event, Queued):
                    yield run.queued(event.jobs_ahead)
                    continue
                if hasattr(event, "done_tokens"):
                    self._reading.take_progress(conversation, plan.document_ends, event)
                told = run.take(event)
                record.so_far = AnswerSoFar(run.answer, run.answer_token_ids, run.thought)
                yield told

    @staticmethod
    def _run_elsewhere(conversation: Conversation, record: TurnRecord, run: RemoteRun) -> Iterator[AnswerEvent]:
        with closing(run.events(conversation)) as events:
            for event in events:
                if isinstance(event, TokenEvent):
                    record.so_far = AnswerSoFar(run.answer, run.answer_token_ids, run.thought)
                yield event

    def prompt(
        self,
        conversation: Conversation,
        question: str,
        options: AnswerOptions,
        turns: list[Turn] | None = None,
        whole_window: bool = False,
    ) -> Generator[ModelLoading | DocumentReading | Queued, None, tuple[LoadedModel, PromptPlan]]:
        """Wait for what a question needs and plan its prompt, for a race.

        Args:
            conversation: occupied by the caller.
            question, options: as in `answer`.
            turns: those that come before the question; None for all of the conversation's.
            whole_window: without turns, over as much of the documents as the window holds.

        Raises:
            UserFacingError: as `answer`.
        """
        model = yield from self._wait_for_model(conversation)
        if model.is_remote:
            raise UserFacingError(f"A race {NEEDS_OUR_CACHE}")
        chosen = yield from self._wait_for_documents(conversation, model)
        if not whole_window:
            return model, (yield from self._plan(model, conversation, chosen, question, options, turns=turns))
        documents = [self._text(conversation, document_id) for document_id in chosen.document_ids]
        room_tokens = options.max_new_tokens + model.thinking.room_tokens
        window = model.tokenizer, model.engine.context_tokens
        return model, window_plan(model.planner, *window, documents, question, options.system_prompt, room_tokens)

    @contextmanager
    def reading_held(self, conversation: Conversation) -> Iterator[None]:
        """Let nothing be read ahead in a conversation."""
        self._reading.hold(conversation)
        try:
            yield
        finally:
            self._reading.go_on(conversation)

    def _wait_for_model(self, conversation: Conversation) -> Generator[ModelLoading, None, LoadedModel]:
        """Wait for the model and tell how far it is, each step once.

        Raises:
            UserFacingError: if it cannot be loaded, or the question was cancelled meanwhile.
        """
        self._loader.start()
        told = None
        while True:
            while (status := self._loader.status).stage in ("starting", "loading"):
                if conversation.cancelled.wait(_POLL_S if status.message == told else 0):
                    raise UserFacingError("Stopped before the model was loaded. Ask again when it is.")
                if status.message != told:
                    told = status.message
                    yield ModelLoading(told)
            model = conversation.model = self._loader.wait()
            # Looked at once it is said: who changes the model takes it away first, and then looks who has it.
            if self._loader.model is model:
                return model
            conversation.model = None

    def _wait_for_documents(
        self, conversation: Conversation, model: LoadedModel, begun: BegunAnswer | None = None
    ) -> Generator[DocumentReading, None, QuestionDocuments]:
        """Wait for a document's text if none is there, and tell how far it is; an answer that goes on has those that it
        was begun with.

        Raises:
            UserFacingError: if no document can be read, the question was cancelled meanwhile, or a document that the
                answer was begun with is not there any more.
        """
        if begun is not None and (report := begun.turn.report) is not None and report.options is not None:
            read = {entry.document_id for entry in self._entries(conversation) if entry.state == "read"}
            if not read.issuperset(report.document_ids):
                raise UserFacingError(
                    "A document that this answer was made from is not in this chat any more. Add it again, or ask the "
                    "question again."
                )
            conversation.documents_in_use = report.document_ids
            return QuestionDocuments(report.document_ids, report.left_out)

        def is_quickly_read(document_id: str) -> bool:
            document = self._text(conversation, document_id)
            return model.planner.document_tokens(document).tokens <= QUICKLY_READ_TOKENS

        waits_for_all = not conversation.is_kept
        told = None
        while True:
            entries = self._entries(conversation)
            chosen = choose_documents(entries, conversation.read_ids, is_quickly_read, waits_for_all, time.time())
            if isinstance(chosen, QuestionDocuments):
                conversation.documents_in_use = chosen.document_ids
                return chosen
            if conversation.cancelled.wait(_POLL_S if chosen == told else 0):
                raise UserFacingError("Stopped before the document was read. Ask again when it is.")
            if chosen != told:
                told = chosen
                yield chosen

    def _snapshot_failure(self, model: LoadedModel) -> str:
        """Why what was read is not kept on the disk, the first time that it is known; else ""."""
        failure = "" if model.engine.snapshots is None else model.engine.snapshots.failure
        is_told, self._told_failure = failure == self._told_failure, failure
        return "" if is_told else failure

    def _plan(
        self,
        model: LoadedModel,
        conversation: Conversation,
        chosen: QuestionDocuments,
        question: str,
        options: AnswerOptions,
        begun: BegunAnswer | None = None,
        turns: list[Turn] | None = None,
    ) -> Generator[Queued, None, PromptPlan]:
        """The prompt; a question that must be searched for in another language is translated before.

        An answer that goes on has the prompt that it was begun with.
        """
        documents = [self._text(conversation, document_id) for document_id in chosen.document_ids]
        if begun is not None:
            return self._plan_again(model, conversation, documents, question, options, begun)
        room_tokens = options.max_new_tokens + model.thinking.room_tokens
        turns = told_turns(model, conversation) if turns is None else [_as_told(model, turn) for turn in turns]
        searched_text = ""
        # The embedded model makes up another question; another engine is asked once a question.
        can_translate = not (self._loader.status.demonstration or model.is_remote)
        if can_translate and model.planner.needs_search(documents, turns, question, options.system_prompt, room_tokens):
            searched_text = yield from translated_question(model, conversation, documents, question)
        return model.planner.plan(documents, turns, question, options.system_prompt, room_tokens, searched_text)

    @staticmethod
    def _plan_again(
        model: LoadedModel,
        conversation: Conversation,
        documents: list[Document],
        question: str,
        options: AnswerOptions,
        begun: BegunAnswer,
    ) -> PromptPlan:
        turns, system_prompt = told_turns(model, conversation), options.system_prompt
        plan = model.planner.plan_again(documents, turns, question, system_prompt, begun.turn.prompt_passages)
        if plan is None:
            # Nothing is known of its passages, or a text has changed: as near as can be to what it was.
            room_tokens = options.max_new_tokens + len(begun.token_ids)
            plan = model.planner.plan(documents, turns, question, system_prompt, room_tokens)
        if len(plan.token_ids) + len(begun.token_ids) >= model.engine.context_tokens:
            raise window_is_full(model.engine.context_tokens)
        return plan


def _own_token_ids(model: LoadedModel, turn: Turn) -> tuple[int, ...]:
    """Of a turn's answer, in this model's tokens."""
    return turn.answer_token_ids if _is_text_of(model, turn) else tuple(model.tokenizer.encode(turn.answer).token_ids)


def reading_plan(model: LoadedModel, conversation: Conversation, documents: list[Document]) -> ReadingPlan | None:
    """What the next prompt of a conversation begins with, if it has these documents; None if that is not known."""
    options = conversation.options or AnswerOptions()
    room_tokens = options.max_new_tokens + model.thinking.room_tokens
    return model.planner.reading_plan(documents, told_turns(model, conversation), options.system_prompt, room_tokens)


def told_turns(model: LoadedModel, conversation: Conversation) -> list[Turn]:
    """The turns as this model is told of them: one that another model answered has other tokens."""
    with conversation.lock:
        if conversation.checked_by is not model.tokenizer:
            conversation.checked_by = model.tokenizer
            conversation.checked_ids.clear()
        for index, turn in enumerate(conversation.turns):
            if turn.turn_id in conversation.checked_ids or not turn.answer:
                continue
            conversation.checked_ids.add(turn.turn_id)
            conversation.turns[index] = _as_told(model, turn)
        return list(conversation.turns)


def _as_told(model: LoadedModel, turn: Turn) -> Turn:
    if not turn.answer or _is_text_of(model, turn):
        return turn
    return replace(turn, answer_token_ids=_own_token_ids(model, turn))


def _is_text_of(model: LoadedModel, turn: Turn) -> bool:
    if not all(0 <= token_id < model.vocab_size for token_id in turn.answer_token_ids):
        return False
    return model.tokenizer.decode(turn.answer_token_ids).strip().startswith(turn.answer.strip())
