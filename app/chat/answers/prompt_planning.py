"""What a question's prompt is planned from, and what a conversation's next prompt will begin with.

The turns as the model is told of them, the documents, room for an answer and a thought, a translation to search with.
How a prompt is laid out is `app.chat.prompt.plan`'s.
"""

from __future__ import annotations

from collections.abc import Generator

from app.chat.answers.answer import AnswerOptions, Queued
from app.chat.answers.begun_answer import BegunAnswer, window_is_full
from app.chat.answers.question_translation import translated_question
from app.chat.answers.told_turns import as_told, told_turns
from app.chat.conversations.conversation import Conversation, Turn
from app.chat.prompt.plan import PromptPlan, ReadingPlan
from app.library import Document
from app.models.model_loader import LoadedModel


def reading_plan(model: LoadedModel, conversation: Conversation, documents: list[Document]) -> ReadingPlan | None:
    """What the next prompt of a conversation begins with, if it has these documents; None if that is not known."""
    options = conversation.options or AnswerOptions()
    room_tokens = options.max_new_tokens + model.thinking.room_tokens
    return model.planner.reading_plan(documents, told_turns(model, conversation), options.system_prompt, room_tokens)


def plan_prompt(
    model: LoadedModel,
    conversation: Conversation,
    documents: list[Document],
    question: str,
    options: AnswerOptions,
    is_embedded: bool,
    turns: list[Turn] | None = None,
) -> Generator[Queued, None, PromptPlan]:
    """The prompt of a question; what must be searched for in another language is translated before.

    Args:
        conversation: whose turns come before.
        documents: whose text is there.
        is_embedded: whether the model is the small one that comes with the app.
        turns: in place of the conversation's.

    Yields:
        `Queued` while the translation waits for others.

    Raises:
        UserFacingError: the window is full.
    """
    room_tokens = options.max_new_tokens + model.thinking.room_tokens
    turns = told_turns(model, conversation) if turns is None else [as_told(model, turn) for turn in turns]
    searched_text = ""
    # The embedded model makes up another question; another engine is asked once a question.
    can_translate = not (is_embedded or model.is_remote)
    if can_translate and model.planner.needs_search(documents, turns, question, options.system_prompt, room_tokens):
        searched_text = yield from translated_question(model, conversation, documents, question)
    return model.planner.plan(documents, turns, question, options.system_prompt, room_tokens, searched_text)


def plan_again(
    model: LoadedModel,
    conversation: Conversation,
    documents: list[Document],
    question: str,
    options: AnswerOptions,
    begun: BegunAnswer,
) -> PromptPlan:
    """The prompt that an answer was begun with, to go on with it.

    Raises:
        UserFacingError: the window is full.
    """
    turns, system_prompt = told_turns(model, conversation), options.system_prompt
    plan = model.planner.plan_again(documents, turns, question, system_prompt, begun.turn.prompt_passages)
    if plan is None:
        # Nothing is known of its passages, or a text has changed: as near as can be to what it was.
        room_tokens = options.max_new_tokens + len(begun.token_ids)
        plan = model.planner.plan(documents, turns, question, system_prompt, room_tokens)
    if len(plan.token_ids) + len(begun.token_ids) >= model.engine.context_tokens:
        raise window_is_full(model.engine.context_tokens)
    return plan
