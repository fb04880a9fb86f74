"""Runs answers on our own engine, and turns what its thread yields into an answer's events.

What the engine's thread does is `app.chat.answers.answer_work`'s. Of another engine's answers see
`app.remote.remote_run`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from app.chat.answers.answer import AnswerEvent, AnswerOptions, Queued
from app.chat.answers.answer_run import AnswerRun
from app.chat.answers.answer_work import answer_work
from app.chat.answers.begun_answer import BegunAnswer
from app.chat.answers.reads.answer_reads import AnswerReads, ReadBaselines
from app.chat.answers.reads.page_heat import SelectionLevels, UsualLevels
from app.chat.answers.thought_stream import ThoughtStream
from app.chat.conversations.conversation import Conversation
from app.chat.engine_jobs import run_job, session_of
from app.chat.prompt.plan import PromptPlan
from app.chat.prompt.template import ChatTokenizer
from app.chat.reading.background_reading import BackgroundReading
from app.models.model_loader import LoadedModel


class EngineAnswers:
    """Runs answers in the thread of whoever makes them.

    Args:
        dense_layers: of the program's settings.
        reading: what reads ahead; stands back meanwhile.
    """

    def __init__(self, dense_layers: int, reading: BackgroundReading) -> None:
        self._dense_layers = dense_layers
        self._reading = reading
        # Of the tokenizer that they were made with.
        self._baselines: tuple[ChatTokenizer, ReadBaselines] | None = None
        self._levels: tuple[ChatTokenizer, SelectionLevels] | None = None

    def events(
        self,
        model: LoadedModel,
        conversation: Conversation,
        run: AnswerRun,
        plan: PromptPlan,
        options: AnswerOptions,
        begun: BegunAnswer | None,
    ) -> Iterator[AnswerEvent]:
        """What comes of an answer until its end, or until the conversation is cancelled.

        Args:
            model: the loaded one, not another engine's.
            conversation: occupied by the caller.
            run: follows the answer; in place.
            plan, options: as `run` has them.
            begun: the answer that goes on; None if it is a new one.

        Raises:
            UserFacingError: for whatever stops the engine.
        """
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
            options.quest_config(model.engine.page_size, self._dense_layers),
            options.sampling_config(model.stop_token_ids),
            text,
            thinking,
            self._baselines_of(model),
            self._levels_of(model),
            begun,
        )
        with self._reading.held(conversation), closing(run_job(conversation, model.engine, work)) as events:
            for event in events:
                if isinstance(event, AnswerReads):
                    run.reads = event
                elif isinstance(event, UsualLevels):
                    run.take_usual(event)
                elif isinstance(event, Queued):
                    yield run.queued(event.jobs_ahead)
                else:
                    if hasattr(event, "done_tokens"):
                        self._reading.take_progress(conversation, plan.document_ends, event)
                    yield run.take(event)

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
