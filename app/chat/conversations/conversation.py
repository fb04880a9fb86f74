"""A conversation: its documents, its turns, and the engine session that remembers them.

Data and locks; what happens in it belongs to `app.chat.assistant`, and how it is kept on the disk to
`app.chat.conversations.stored_conversations`.
"""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from app.chat.answers.answer import AnswerOptions, AnswerReport
from app.chat.prompt.plan import PromptPlan
from app.chat.prompt.turn_passages import TurnPassages
from app.library import Document
from app.store.stored_conversation import TurnState

if TYPE_CHECKING:
    from app.chat.answers.running_answer import RunningAnswer
    from app.chat.prompt.template import ChatTokenizer
    from app.models.model_loader import LoadedModel
    from quest_core.engine import Job
    from quest_core.session import Session


@dataclass(frozen=True)
class Turn:
    """A question and what was answered.

    Args:
        question, answer: their texts.
        report: how the answer was made; None of one that was interrupted or has failed.
        answer_token_ids: the answer's tokens without its thought and the stop token.
        turn_id: names it in the store; one that begins with "-" could not be stored, or was asked in the terminal.
        state: "stopped" by the user, "interrupted" by the end of the server, "failed" on an error after its first
            words; an answer that is under way is no turn yet, see `RunningAnswer`.
        siblings: ids of all turns that continue the conversation from the same point, in the order they were asked,
            its own included. More than one where a question was edited or asked again.
        parent_id: of the turn that it follows; None if it comes first, or is not stored.
    """

    question: str
    answer: str
    report: AnswerReport | None
    answer_token_ids: tuple[int, ...]
    turn_id: str = ""
    state: TurnState = "finished"
    siblings: tuple[str, ...] = ()
    parent_id: str | None = None

    @property
    def is_stored(self) -> bool:
        return self.turn_id.isdecimal()

    @property
    def prompt_passages(self) -> TurnPassages | None:
        """What its question has brought into the prompt; None without passages, or if that is not known."""
        passages = self.report and self.report.passages
        return passages.added if passages else None


@dataclass(eq=False)
class Conversation:
    """One user's thread. Only the assistant changes it.

    Args:
        conversation_id: 32 hexadecimal digits, hard to guess.
        document_ids: in the order they were added; whether the text of one is there, the library knows.
        read_ids: those of them that the model has read once in this conversation.
        turns: those of the active branch, without the one that is being answered; none is empty.
        unanswered: the question that was never begun to be answered; "" if there is none.
        title: what the list of conversations shows; "" before the first question.
        is_kept: whether it is stored, and read ahead of its questions; one of the terminal is not.
        is_deleted: whether it was deleted, and not brought back.
        busy: held while an answer or a race is made.
        lock: held for as long as a field is changed, never longer.
        cancelled: set by whoever wants the running answer to stop.
        session: the engine's; touched only inside jobs.
        job: the running one.
        model: the one that the running answer or comparison has begun with, or None.
        running: the answer that is being made, or None.
        documents_in_use: ids of those that the running answer or race has in its prompt, or waits for.
        options: of the last question, None before it.
        plan: prompt of the last answer, finished or not.
        generated: tokens of that answer so far.
        texts: the documents whose text was needed, by id, so that what is known of them stays known.
        checked_ids: of turns whose tokens are known to be those of the tokenizer `checked_by`.
        unkept_reason: why a conversation that should have been stored is not; "" otherwise.
    """

    conversation_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    document_ids: list[str] = field(default_factory=list)
    read_ids: set[str] = field(default_factory=set)
    turns: list[Turn] = field(default_factory=list)
    unanswered: str = ""
    title: str = ""
    is_kept: bool = True
    is_deleted: bool = False
    busy: threading.Lock = field(default_factory=threading.Lock, repr=False)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    cancelled: threading.Event = field(default_factory=threading.Event, repr=False)
    session: Session | None = field(default=None, repr=False)
    job: Job | None = field(default=None, repr=False)
    model: LoadedModel | None = field(default=None, repr=False)
    running: RunningAnswer | None = field(default=None, repr=False)
    documents_in_use: tuple[str, ...] = ()
    options: AnswerOptions | None = None
    plan: PromptPlan | None = field(default=None, repr=False)
    generated: list[int] = field(default_factory=list, repr=False)
    texts: dict[str, Document] = field(default_factory=dict, repr=False)
    checked_ids: set[str] = field(default_factory=set, repr=False)
    checked_by: ChatTokenizer | None = field(default=None, repr=False)
    unkept_reason: str = ""
