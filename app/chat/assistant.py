"""The assistant: the model, the library and the conversations of one run of the app.

What the page, the server and the terminal talk to; safe to call from any thread. A conversation has one engine session
and does one thing at a time; several conversations take turns in the engine's queue. An answer belongs to the assistant
and goes on whoever watches it. Knows nothing of Gradio or HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

from app.chat.answers.answer import AnswerOptions
from app.chat.answers.answer_sources import answer_sources
from app.chat.answers.reads.document_pages import document_pages
from app.chat.answers.reads.provenance import page_text
from app.chat.answers.running_answer import AnswerFollower, RunningAnswer
from app.chat.answers.told_turns import told_turns
from app.chat.assistant_parts import AssistantParts
from app.chat.conversations.conversation import Conversation
from app.chat.document_reading import follow_reading
from app.chat.library_listing import library_listing
from app.chat.prompt.document_tokens import TokenCount
from app.chat.prompt.plan import ContextUsage
from app.chat.reading.background_reading import ReadingState
from app.chat.sample_listing import SampleReading, sample_reading
from app.errors import UserFacingError
from app.library import Document
from app.library.library_entry import LibraryEntry
from app.library.sample_books import SampleBook
from app.models.model_loader import LoadedModel, ModelStatus
from app.race.kept_record import RaceRequest
from app.race.running_race import RunningRace
from app.settings import NEEDS_OUR_CACHE, AppSettings
from app.store.stored_conversation import ConversationSummary


class Assistant:
    """Answers questions about documents.

    Args:
        settings: which model, and how; nothing is loaded before `start_loading` or the first need.
        keep: read and keep documents, conversations and what models have read in the data folder; otherwise all of it
            is in a temporary folder.
        beside_another: if another process writes in the data folder, read it only, instead of refusing it.
        remembers_model: load the model that was chosen in an earlier run, if one was, in place of that of the settings.

    Attributes:
        settings: as given.
        telemetry: what all answers publish to.
        library: the documents.
        viewer: shows them as their authors made them.
        models: those on this machine, of which one answers.
        model_downloads: models on their way from the hub.
        conversations: the store of conversations.
        completions: for other programs, with messages of their own.
        races: of dense attention against Quest, the last few of each conversation.
        notice: what the user should be told of how the data folder was found; "" if all is well.

    Raises:
        UserFacingError: the data folder cannot be used; `FolderInUse` if another process writes in it.
    """

    def __init__(
        self,
        settings: AppSettings,
        keep: bool = True,
        beside_another: bool = False,
        remembers_model: bool = False,
    ) -> None:
        parts = AssistantParts(settings, keep, beside_another, remembers_model)
        self.settings = settings
        self.telemetry = parts.telemetry
        self.library = parts.library
        self.viewer = parts.viewer
        self.models = parts.models
        self.model_downloads = parts.downloads
        self.conversations = parts.store
        self.completions = parts.completions
        self.races = parts.races
        self.notice = parts.notice
        self._parts = parts
        # What most methods hand on to.
        self._loader, self._stored = parts.loader, parts.stored
        self._access, self._use, self._documents = parts.access, parts.use, parts.documents

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

    def loaded_model(self) -> LoadedModel:
        """The engine that answers, with its tokenizer; waits for it as `wait_until_ready`.

        Raises:
            UserFacingError: if it cannot be loaded.
        """
        return self._loader.wait()

    def switch_model(
        self, model: str, context_tokens: int | None = None, weight_bits: int | None = None, stop_answers: bool = False
    ) -> None:
        """Begin to load another of the models on this machine; see `ModelPicker.switch`.

        Raises:
            UserFacingError: no such model, it does not fit, another is being loaded, or answers are being made.
        """
        self.models.switch(model, context_tokens, weight_bits, stop_answers)

    # Conversations

    def open_conversation(self, conversation_id: str = "", continue_last: bool = True) -> Conversation:
        """The conversation of that id; without one, that which a tab shows which asks for none.

        Args:
            conversation_id: "" for the last one that holds anything, or a new one if somebody watches it or it is
                answering.
            continue_last: without it, "" is always a new one.

        Raises:
            UserFacingError: if there is none of that id.
        """
        return self._access.open(conversation_id, continue_last)

    def new_conversation(self, kept: bool = True) -> Conversation:
        """An empty conversation.

        Args:
            kept: store it, and read its documents ahead of its questions; without, it ends with the program, and its
                questions wait for all of its documents.
        """
        return self._access.begin(kept)

    def conversation(self, conversation_id: str) -> Conversation:
        """The conversation of that id, from the store if it must be.

        Raises:
            UserFacingError: if there is none.
        """
        return self._access.find(conversation_id)

    def delete_conversation(self, conversation_id: str) -> None:
        """Take a conversation away, until `undelete_conversation`, for a day; what it answers is stopped.

        Raises:
            UserFacingError: if that cannot be stored.
        """
        self._access.delete(conversation_id)
        self.races.forget(conversation_id)
        self._parts.changes.note()

    def undelete_conversation(self, conversation_id: str) -> None:
        """Bring a deleted conversation back.

        Raises:
            UserFacingError: if it has gone for good.
        """
        self.conversations.undelete(conversation_id)
        self._parts.changes.note()

    def rename_conversation(self, conversation_id: str, title: str) -> None:
        """Give a conversation a title.

        Raises:
            UserFacingError: an empty title, or no such conversation.
        """
        self._access.rename(conversation_id, title)

    def conversation_summaries(self, search: str = "") -> list[ConversationSummary]:
        """The conversations that hold anything, the one used last first; with `search`, those that have its words."""
        return self.conversations.summaries(search)

    def is_answering(self, conversation_id: str) -> bool:
        """Whether an answer is being made in a conversation."""
        return self._access.is_answering(conversation_id)

    def library_json(self, conversation_id: str = "", search: str = "") -> dict[str, Any]:
        """What the page's lists show; see `app.chat.library_listing.library_listing`.

        Raises:
            UserFacingError: if there is no such conversation; "" is none.
        """
        conversation = self.conversation(conversation_id) if conversation_id else None
        return library_listing(self, conversation, search)

    def export_conversation(self, conversation_id: str, kind: Literal["markdown", "json"]) -> str:
        """A conversation as a text of its own: its active branch, and in JSON the turns of all others too.

        Raises:
            UserFacingError: if there is no such conversation.
        """
        names = [entry.name for entry in self.entries(self.conversation(conversation_id))]
        return self._access.export(conversation_id, names, kind)

    def select_turn(self, conversation: Conversation, turn_id: str) -> None:
        """Go back to another branch: the one with that turn, down to its latest answer.

        Raises:
            UserFacingError: no such turn, or the conversation is answering.
        """
        self._access.select_turn(conversation, turn_id)

    # Documents

    def entries(self, conversation: Conversation) -> list[LibraryEntry]:
        """A conversation's documents as the library lists them, in order."""
        return self._documents.entries(conversation)

    def add_document(
        self,
        conversation: Conversation,
        path: Path,
        name: str | None = None,
        password: str | None = None,
        take: bool = False,
    ) -> LibraryEntry:
        """Add a document to the library and to a conversation; its text, and the model's reading, come afterwards.

        Args:
            conversation: may be answering.
            path, name, password, take: see `Library.add`.

        Raises:
            UserFacingError: the file cannot be one that is read, or cannot be kept.
        """
        return self._use.add(conversation, path, name, password, take)

    def read_document(
        self, conversation: Conversation, path: Path, password: str | None = None, recognises: bool = False
    ) -> Iterator[LibraryEntry]:
        """`add_document`, and follow until its text is there or cannot be; see `follow_reading`.

        Raises:
            UserFacingError: as `add_document`, or whatever stops the reading.
        """
        entry = self.add_document(conversation, path, password=password)
        yield from follow_reading(self.library, entry.document_id, password, recognises)

    def add_sample_book(self, conversation: Conversation, document_id: str) -> LibraryEntry:
        """Add one of the books that come with the app, under its title.

        Raises:
            UserFacingError: no such book, or it cannot be kept.
        """
        return self._use.add_sample_book(conversation, document_id)

    def sample_reading(self, book: SampleBook) -> SampleReading | None:
        """What reading a sample book takes here; None before the model is loaded."""
        if (model := self._loader.model) is None:
            return None
        return sample_reading(model, book, partial(self._parts.rates.estimate, self._parts.rates_key()))

    def attach_document(self, conversation: Conversation, document_id: str) -> None:
        """Give a conversation a document of the library; one that it has stays where it is.

        Raises:
            UserFacingError: no such document, or it cannot be stored.
        """
        self._use.attach(conversation, document_id)

    def remove_document(self, conversation: Conversation, document_id: str) -> None:
        """Take a document out of a conversation; it stays in the library.

        Raises:
            UserFacingError: if the conversation is answering, or that cannot be stored.
        """
        self._use.take_out(conversation, document_id)

    def delete_document(self, document_id: str) -> None:
        """Remove a document from the library and all conversations, with all that models have kept of it.

        Raises:
            UserFacingError: if an answer uses it, or it cannot be removed.
        """
        self._use.delete(document_id, self.viewer.forget)
        self._parts.changes.note()

    def kept_bytes(self, document_id: str) -> int:
        """What models have kept of a document on the disk; 0 before the present one is loaded."""
        return 0 if self._loader.model is None else self._parts.kept_bytes.of(document_id)

    def reading(self, document_id: str, conversation: Conversation) -> ReadingState:
        """How far a document is in a conversation.

        Raises:
            UserFacingError: if it is not in the library.
        """
        return self._parts.reading.state(conversation, self.library.entry(document_id))

    def documents(self, conversation: Conversation) -> list[Document]:
        """Those of a conversation's documents whose text is there, in order."""
        return self._documents.texts(conversation)

    def document_tokens(self, document_id: str) -> TokenCount | None:
        """Tokens of one document's text, counted if nobody has, which takes a second for a long book.

        None if its text is not there yet, or the model is not, by which they would be counted.
        """
        return self._parts.tokens.of(document_id)

    def counted_tokens(self) -> dict[str, TokenCount]:
        """Tokens of all documents that were counted for the model that is loaded."""
        return self._parts.tokens.counted()

    def context_usage(self, conversation: Conversation, options: AnswerOptions | None = None) -> ContextUsage:
        """What fills the window before the next question; waits for the model."""
        options = options or AnswerOptions()
        model = self._loader.wait()
        documents, turns = self.documents(conversation), told_turns(model, conversation)
        room_tokens = options.max_new_tokens + model.thinking.room_tokens
        return model.planner.usage(documents, turns, options.system_prompt, room_tokens)

    # Answers

    def ask(
        self, conversation: Conversation, question: str, options: AnswerOptions, after_turn: int | None = None
    ) -> RunningAnswer:
        """Begin to answer a question. The answer goes on until its end or `cancel`, whoever watches it.

        Its turn is kept at the end, also if it was cancelled with what there is. An answer without a word leaves no
        turn, and its question in `Conversation.unanswered`.

        Args:
            conversation: has no other answer under way.
            question, options: what is asked, and how.
            after_turn: of the turns so far, so many come before the question; the others stay as another branch. None
                for all.

        Raises:
            UserFacingError: empty question, options out of range, conversation busy or deleted. What fails later is
                raised by `RunningAnswer.follow`.
        """
        return self._parts.starts.ask(conversation, question, options, after_turn)

    def continue_answer(self, conversation: Conversation, turn_id: str, options: AnswerOptions) -> RunningAnswer:
        """Let the last answer of a conversation go on from where it was cut, as if its limit had been greater.

        Args:
            conversation: has no other answer under way.
            turn_id: of its last turn.
            options: how many tokens may be added; all else is as the answer was begun, where that is known.

        Raises:
            UserFacingError: not its last turn, the answer is complete, conversation busy or deleted. What fails later
                is raised by `RunningAnswer.follow`.
        """
        return self._parts.starts.continue_answer(conversation, turn_id, options)

    def answer(self, conversation: Conversation, question: str, options: AnswerOptions) -> AnswerFollower:
        """`ask`, and follow."""
        return self.ask(conversation, question, options).follow()

    def running_answer(self, conversation: Conversation) -> RunningAnswer | None:
        """The answer that is being made in a conversation, or None."""
        return conversation.running

    def start_race(self, conversation: Conversation, request: RaceRequest) -> RunningRace:
        """Begin a race of dense attention against Quest, or a sweep over budgets; the conversation stays as it is.

        Raises:
            UserFacingError: as `ask`. What fails later stands in the race.
        """
        if self.settings.engine_url:
            raise UserFacingError(f"A race {NEEDS_OUR_CACHE}")
        self._parts.answering.check(request.question, request.options)
        return self.races.start(conversation, request)

    def race(self, conversation: Conversation, question: str, options: AnswerOptions) -> Iterator[Any]:
        """The events of a race, made as they are asked for; see `RaceMaking.make`."""
        self._parts.answering.check(question, options)
        with self._access.occupied(conversation) as conversation:
            conversation.documents_in_use = tuple(conversation.document_ids)
            yield from self._parts.race_making.make(conversation, RaceRequest(question, options))

    def race_outlook(self, conversation_id: str) -> dict[str, Any]:
        """What a race in a conversation would be; see `RaceMaking.outlook`.

        Raises:
            UserFacingError: if there is no such conversation.
        """
        return self._parts.race_making.outlook(self.conversation(conversation_id))

    def cancel(self, conversation: Conversation) -> None:
        """Stop what runs in a conversation at its next chance; does nothing if nothing does."""
        self._access.cancel(conversation)

    def page_text(self, conversation_id: str, page: int) -> dict[str, Any]:
        """What KV page `page` of a conversation's last answer holds; see `app.chat.answers.reads.provenance.page_text`.

        Raises:
            UserFacingError: if there is no such conversation, it has had no answer since the start, or no such page.
        """
        conversation = self.conversation(conversation_id)
        model = self._loader.model
        if self.settings.engine_url:
            raise UserFacingError(f"The page map {NEEDS_OUR_CACHE}")
        if conversation.plan is None or model is None:
            raise UserFacingError("Nothing has been read yet. Ask a question first.")
        return page_text(
            conversation.plan, list(conversation.generated), page, model.engine.page_size, model.tokenizer.decode
        )

    def document_pages(self, conversation_id: str) -> dict[str, Any]:
        """The document pages of a conversation's last answer; see `app.chat.answers.reads.document_pages`.

        Raises:
            UserFacingError: if there is no such conversation.
        """
        conversation = self.conversation(conversation_id)
        return document_pages(conversation, self.documents(conversation))

    def sources(self, conversation_id: str, turn_id: str) -> dict[str, Any]:
        """What stands beside an answer as its evidence; see `app.chat.answers.answer_sources.answer_sources`.

        Raises:
            UserFacingError: if there is no such conversation, or no such answer in it.
        """
        return answer_sources(self.conversation(conversation_id), turn_id, self._stored.all_turns)

    def flush_snapshots(self, timeout_s: float) -> bool:
        """Wait until what was read is on the disk; False if that takes longer."""
        snapshots = None if self._loader.model is None else self._loader.model.engine.snapshots
        return snapshots is None or snapshots.flush(timeout_s)

    def close(self) -> None:
        """Cancel all, keep what was said, and let the engine and the data folder go; further calls do nothing."""
        self._parts.close()
