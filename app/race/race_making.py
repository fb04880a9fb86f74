"""How a race or a sweep is made: its prompt, its work on the engine, its events, and how long it will take.

What is here runs in the thread of whoever makes a race, and ends with it. A race has a session of its own, forked from
the conversation's: what that remembers, and the conversation, stay as they are.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from app.chat.answers.answer import AnswerOptions, PrefillEvent
from app.chat.answers.answering import Answering
from app.chat.answers.text_stream import TextStream
from app.chat.answers.told_turns import told_turns
from app.chat.conversations.conversation import Conversation, Turn
from app.chat.engine_jobs import run_job, session_of
from app.chat.prompt.plan import LIKELY_QUESTION_TOKENS
from app.chat.reading.background_reading import BackgroundReading
from app.errors import UserFacingError
from app.library import Document
from app.models.model_loader import LoadedModel
from app.race.expected_time import ExpectedTime
from app.race.kept_record import RaceRequest
from app.race.race import RaceEvent, RaceFinished, RacePlanned, race_events, race_work
from app.race.sweep import MOST_LED_TOKENS, SweepFinished, SweepPoint, sweep_work
from app.race.sweep_record import SweepEvent

if TYPE_CHECKING:
    from app.chat.prompt.plan import PromptPlan
    from quest_core.session import Session


class RaceMaking:
    """Makes the events of races.

    Args:
        answering: waits for what a question needs, and plans prompts.
        dense_layers: of the program's settings.
        all_turns: the turns of all branches of a conversation.
        model: the loaded one, or None.
        documents: those of a conversation whose text is there.
        reading: what reads ahead; stands back during a race, and knows how fast the model reads.
    """

    def __init__(
        self,
        answering: Answering,
        dense_layers: int,
        all_turns: Callable[[Conversation], list[Turn]],
        model: Callable[[], LoadedModel | None],
        documents: Callable[[Conversation], list[Document]],
        reading: BackgroundReading,
    ) -> None:
        self._answering = answering
        self._dense_layers = dense_layers
        self._all_turns = all_turns
        self._model = model
        self._documents = documents
        self._reading = reading
        self._expected_of: tuple[LoadedModel | None, ExpectedTime] = (None, ExpectedTime())

    def make(self, conversation: Conversation, request: RaceRequest) -> Iterator[Any]:
        """A race, or with budgets a sweep; the conversation stays as it is.

        Args:
            conversation: occupied by the caller.
            request: what is asked.

        Yields:
            `ModelLoading`, `DocumentReading`, `Queued`, `RacePlanned`, `PrefillEvent`; then of a race `RaceToken` of
            either side, and last `RaceFinished`; of a sweep `SweepAnswer`, `SweepPoint`, and last `SweepFinished`.
            Closing the generator cancels.

        Raises:
            UserFacingError: window full, no document can be read, model failed, no such turn, or cancelled before
                anything was read.
        """
        turns = self._turns_before(conversation, request.turn_id) if request.turn_id else None
        options = request.options
        if request.budgets:
            options = replace(options, temperature=0.0, max_new_tokens=MOST_LED_TOKENS)
        model, plan = yield from self._answering.prompt(
            conversation, request.question, options, turns, request.whole_window
        )
        engine = model.engine
        yield RacePlanned(plan, engine.model_name, engine.device_name, engine.page_size)

        def open_session() -> Session:
            # What the conversation's session holds is read already; another text does not belong there.
            return engine.new_session() if request.whole_window else session_of(conversation, engine).fork()

        request = replace(request, options=options)
        work = (self._sweep if request.budgets else self._race)(model, plan, request, open_session)
        with self._reading.held(conversation), closing(run_job(conversation, engine, work)) as events:
            yield from (self._sweep_events if request.budgets else self._race_events)(
                events, request, self._expected(model)
            )

    def outlook(self, conversation: Conversation) -> dict[str, Any]:
        """What a race in a conversation would be over, and how long it would take, before one is begun.

        Returns:
            "ready": whether the model is loaded; without it, nothing else. "mode": "whole" or "passages";
            "document_tokens" of all its documents, "text_tokens" of them that an answer is given; "window_tokens" of
            them that the window holds, None where that is no more; "reading_s" for those; "race_s" against Quest,
            "exact_race_s" against Exact; "sweep_s" for what comes before its first budget, "sweep_s_per_budget":
            seconds, None if nothing like it was measured yet. "attention", "token_budget", "max_new_tokens": of the
            conversation's options.
        """
        model = self._model()
        if model is None or model.is_remote:
            return {"ready": False}
        options = conversation.options or AnswerOptions()
        room_tokens = options.max_new_tokens + model.thinking.room_tokens
        documents, turns = self._documents(conversation), told_turns(model, conversation)
        usage = model.planner.usage(documents, turns, options.system_prompt, room_tokens)
        window_tokens = None
        if usage.mode == "passages":
            alone = model.planner.usage([], (), options.system_prompt, room_tokens)
            beside_tokens = alone.conversation_tokens + LIKELY_QUESTION_TOKENS + room_tokens
            window_tokens = min(model.engine.context_tokens - beside_tokens, usage.document_tokens.tokens)
        expected = self._expected(model)
        expected.note_timer(self._reading.measured())
        for turn in turns:
            if turn.report is not None and turn.report.model == model.engine.model_name:
                attention = turn.report.attention
                if attention == "auto":
                    attention = "dense" if turn.report.read_all else "quest"
                expected.note_answer(attention, turn.report.decode_tokens_per_s)
        no_budget_s, one_budget_s = expected.sweep_s(0), expected.sweep_s(1)
        return {
            "ready": True,
            "mode": usage.mode if documents else "none",
            "document_tokens": usage.document_tokens.tokens,
            "text_tokens": usage.document_tokens.tokens if usage.mode == "whole" else usage.passage_tokens,
            "window_tokens": window_tokens,
            "reading_s": None if window_tokens is None else expected.reading_s(0, window_tokens),
            "race_s": expected.race_s("quest", options.max_new_tokens),
            "exact_race_s": expected.race_s("exact", options.max_new_tokens),
            "sweep_s": no_budget_s,
            "sweep_s_per_budget": None if one_budget_s is None else one_budget_s - no_budget_s,
            "attention": RaceRequest("", options).attention,
            "token_budget": options.token_budget,
            "max_new_tokens": options.max_new_tokens,
        }

    def _race(
        self, model: LoadedModel, plan: PromptPlan, request: RaceRequest, open_session: Callable[[], Session]
    ) -> Any:
        options, layout = request.options, (model.engine.page_size, self._dense_layers)
        if options.seed is None:
            # Both sides must draw alike, or chance alone would part them.
            options = replace(options, seed=random.getrandbits(31))
        # Both sides show all that they draw, a thought too.
        longest = replace(options, max_new_tokens=options.max_new_tokens + model.thinking.room_tokens)
        return race_work(
            open_session,
            plan,
            replace(options, attention="dense").quest_config(*layout),
            replace(options, attention=request.attention).quest_config(*layout),
            longest.sampling_config(model.stop_token_ids),
            lambda: TextStream(model.tokenizer.decode, options.stop),
        )

    def _sweep(
        self, model: LoadedModel, plan: PromptPlan, request: RaceRequest, open_session: Callable[[], Session]
    ) -> Any:
        options, layout = request.options, (model.engine.page_size, self._dense_layers)
        quests = [
            replace(options, attention="quest", token_budget=budget).quest_config(*layout) for budget in request.budgets
        ]
        return sweep_work(
            open_session,
            plan,
            replace(options, attention="dense").quest_config(*layout),
            quests,
            options.sampling_config(model.stop_token_ids),
            lambda: TextStream(model.tokenizer.decode),
        )

    def _race_events(self, events: Iterator[Any], request: RaceRequest, expected: ExpectedTime) -> Iterator[RaceEvent]:
        for event in race_events(events, expected.new_timer()):
            if isinstance(event, RaceFinished):
                expected.note_step("dense", event.dense.ms_per_token)
                expected.note_step(event.attention, event.quest.ms_per_token)
            yield event

    def _sweep_events(
        self, events: Iterator[Any], request: RaceRequest, expected: ExpectedTime
    ) -> Iterator[SweepEvent]:
        timer, points = expected.new_timer(), 0
        for event in events:
            if hasattr(event, "done_tokens"):
                left = timer.remaining_s(event.done_tokens, event.total_tokens, event.elapsed_s, event.reused_tokens)
                event = PrefillEvent(event, left)
            points += isinstance(event, SweepPoint)
            yield event
        yield SweepFinished(points == len(request.budgets))

    def _expected(self, model: LoadedModel) -> ExpectedTime:
        """What was measured with this model: another one has other times."""
        if self._expected_of[0] is not model:
            self._expected_of = (model, ExpectedTime())
        return self._expected_of[1]

    def _turns_before(self, conversation: Conversation, turn_id: str) -> list[Turn]:
        """The turns that came before one, whichever branch is shown."""
        with conversation.lock:
            shown = list(conversation.turns)
        for number, turn in enumerate(shown):
            if turn.turn_id == turn_id:
                return shown[:number]
        by_id = {turn.turn_id: turn for turn in self._all_turns(conversation)}
        if turn_id not in by_id:
            raise UserFacingError("This answer is not in the conversation any more. Reload the page.")
        before: list[Turn] = []
        while (parent_id := (before[0] if before else by_id[turn_id]).parent_id) in by_id:
            before.insert(0, by_id[parent_id])
        return before
