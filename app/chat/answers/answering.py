"""How a question is answered: wait for what it needs, plan the prompt, run it on the engine, keep the turn.

What is here runs in the thread of whoever makes an answer or a race, and ends with it; who watches
belongs to `app.chat.answers.running_answer`, and which conversations there are to the assistant.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
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
from app.chat.answers.answer_needs import AnswerNeeds
from app.chat.answers.answer_run import AnswerRun
from app.chat.answers.begun_answer import BegunAnswer, options_to_go_on
from app.chat.answers.engine_answers import EngineAnswers
from app.chat.answers.prompt_planning import plan_again, plan_prompt
from app.chat.answers.reads.answer_reads import sentence_reads
from app.chat.answers.reads.provenance import scored_pages
from app.chat.answers.told_turns import own_token_ids
from app.chat.conversations.conversation import Conversation, Turn
from app.chat.conversations.stored_conversations import AnswerSoFar, TurnRecord
from app.chat.prompt.plan import PromptPlan
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
        self._publish = publish
        self._is_closing = is_closing
        self._needs = AnswerNeeds(loader, entries, text)
        self._engine_answers = EngineAnswers(settings.dense_layers, reading)
        self._told_failure = ""

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
            model = yield from self._needs.wait_for_model(conversation)
            if begun_turn is not None and model.is_remote:
                raise UserFacingError(f"Going on with an answer that was cut {NEEDS_OUR_CACHE} Ask a further question.")
            if begun_turn is not None:
                begun = BegunAnswer.of(begun_turn, own_token_ids(model, begun_turn), model.thinking)
                options = options_to_go_on(begun_turn, options)
            chosen = yield from self._needs.wait_for_documents(conversation, model, begun)
            # All texts that are there: also of documents that the prompt leaves out.
            texts = self._texts(conversation)
            found = PassagesFound(self._evidence.passages(texts, question))
            yield found
            documents = [self._text(conversation, document_id) for document_id in chosen.document_ids]
            if begun is None:
                plan = yield from self._plan(model, conversation, documents, question, options)
            else:
                plan = plan_again(model, conversation, documents, question, options, begun)
            if model.is_remote:
                from app.remote.remote_run import RemoteRun

                run = RemoteRun(model, plan, options)
                # No page of a cache stands for any of it.
                conversation.plan, conversation.generated = None, []
                events = run.events(conversation)
            else:
                run = AnswerRun(
                    model.engine, plan, options, lambda event: self._publish(conversation.conversation_id, event), begun
                )
                conversation.plan, conversation.generated = plan, run.token_ids
                events = self._engine_answers.events(model, conversation, run, plan, options, begun)
            with closing(events):
                for event in events:
                    if isinstance(event, TokenEvent):
                        record.so_far = AnswerSoFar(run.answer, run.answer_token_ids, run.thought)
                    yield event
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
        model = yield from self._needs.wait_for_model(conversation)
        if model.is_remote:
            raise UserFacingError(f"A race {NEEDS_OUR_CACHE}")
        chosen = yield from self._needs.wait_for_documents(conversation, model)
        documents = [self._text(conversation, document_id) for document_id in chosen.document_ids]
        if not whole_window:
            return model, (yield from self._plan(model, conversation, documents, question, options, turns))
        room_tokens = options.max_new_tokens + model.thinking.room_tokens
        window = model.tokenizer, model.engine.context_tokens
        return model, window_plan(model.planner, *window, documents, question, options.system_prompt, room_tokens)

    def _snapshot_failure(self, model: LoadedModel) -> str:
        """Why what was read is not kept on the disk, the first time that it is known; else ""."""
        failure = "" if model.engine.snapshots is None else model.engine.snapshots.failure
        is_told, self._told_failure = failure == self._told_failure, failure
        return "" if is_told else failure

    def _plan(
        self,
        model: LoadedModel,
        conversation: Conversation,
        documents: list[Document],
        question: str,
        options: AnswerOptions,
        turns: list[Turn] | None = None,
    ) -> Generator[Queued, None, PromptPlan]:
        is_embedded = self._loader.status.demonstration
        return plan_prompt(model, conversation, documents, question, options, is_embedded, turns)
