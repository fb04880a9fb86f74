"""The assistant: the model, the library and the conversations of one run of the app.

What the page, the server and the terminal talk to; safe to call from any thread. A conversation has one engine session
and does one thing at a time; several conversations take turns in the engine's queue. An answer belongs to the assistant
and goes on whoever watches it. Knows nothing of Gradio or HTTP.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

from app.chat.answers.answer import AnswerOptions
from app.chat.answers.answer_sources import answer_sources
from app.chat.answers.answering import Answering, reading_plan, told_turns
from app.chat.answers.begun_answer import check_can_go_on
from app.chat.answers.continued_turn import ContinuedTurn
from app.chat.answers.document_pages import document_pages
from app.chat.answers.provenance import page_text
from app.chat.answers.running_answer import AnswerFollower, RunningAnswer
from app.chat.answers.telemetry import TelemetryHub
from app.chat.change_notices import ChangeNotices
from app.chat.conversations.conversation import Conversation, Turn
from app.chat.conversations.conversation_documents import ConversationDocuments
from app.chat.conversations.conversation_export import exported_json, exported_markdown
from app.chat.conversations.open_conversations import OpenConversations
from app.chat.conversations.stored_conversations import StoredConversations, TurnRecord
from app.chat.document_reading import follow_reading
from app.chat.engine_jobs import close_session
from app.chat.library_listing import library_listing
from app.chat.model_handover import ModelHandover
from app.chat.opened_data import OpenedData
from app.chat.prompt.document_tokens import TokenCount
from app.chat.prompt.plan import ContextUsage
from app.chat.reading.background_reading import BackgroundReading, ReadingState
from app.chat.reading.kept_bytes import KeptBytes
from app.chat.reading.reading_rates import RATES_FILE, ReadingRates
from app.chat.sample_listing import SampleReading, sample_reading
from app.errors import UserFacingError
from app.evidence.evidence import Evidence
from app.library import Document
from app.library.library import Library
from app.library.library_entry import LibraryEntry
from app.library.sample_books import SampleBook, sample_book
from app.models.hub.hub_downloads import HubDownloads
from app.models.model_loader import ModelLoader, ModelStatus
from app.models.model_picker import ModelPicker, remembered_settings
from app.race.race_making import RaceMaking
from app.race.race_record import RaceRequest
from app.race.races import Races
from app.race.running_race import RunningRace
from app.settings import AppSettings
from app.store.conversation_store import ConversationStore
from app.store.stored_conversation import ConversationSummary
from app.viewer.document_viewer import DocumentViewer

# A deleted conversation can be brought back as long; one that never held anything goes after as long.
_DELETED_KEPT_S = 24 * 3600.0
# At the end, running answers have so long to keep what they have said.
_ANSWERS_END_S = 2.0
# How often one looks whether a document is still in use.
_IN_USE_POLL_S = 0.2


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
        self.settings = settings
        self.telemetry = TelemetryHub()
        self._closing = False
        self._data = OpenedData.open(settings, keep, beside_another)
        self.notice = self._data.notice
        self.conversations = ConversationStore(self._data.database)
        self._stored = StoredConversations(self.conversations)
        self._notices = ChangeNotices(lambda: self.telemetry.tell_all({"type": "library"}))
        self._new_texts = ChangeNotices(self._read_new_texts)
        self._evidence = Evidence()
        self._kept_bytes = KeptBytes(self._data.engine_config.snapshot_dir)
        self._model_notices = ChangeNotices(lambda: self.telemetry.tell_all({"type": "models"}))
        remembered = remembered_settings(settings) if remembers_model else None
        self._loader = ModelLoader(
            remembered or settings,
            self._data.engine_config,
            self._model_is_ready,
            self._model_notices.note,
            fallback=settings if remembered else None,
        )
        self.library = Library(
            self._data.folder,
            self._data.database,
            self._new_texts.note,
            self._text_was_replaced,
            settings.ocr_languages,
        )
        self.viewer = DocumentViewer(self.library)
        self.model_downloads = HubDownloads(
            self._data.folder / "model-downloads.json" if self._data.is_written else None,
            settings.offline,
            self._model_notices.note,
        )
        self._documents = ConversationDocuments(self.library, self._stored, self._tell_changed)
        self._rates = ReadingRates(self._data.folder / RATES_FILE, is_written=self._data.is_written)
        self._reading = BackgroundReading(
            self._loader,
            self._documents.readable,
            reading_plan,
            self._documents.note_read,
            self._notices.note,
            lambda timer: self._rates.note(self._rates_key(), timer.rates()),
        )
        self._open = OpenConversations(self._load, self.telemetry.is_watched, self._put_away)
        handover = ModelHandover(self._open.present, self.cancel, self._reading, self.conversations.forget_reads)
        self.models = ModelPicker(
            settings,
            settings.data_dir,
            self._data.is_written and not self._data.is_temporary,
            self._loader,
            handover,
            self._model_notices.note,
        )
        self._answering = Answering(
            settings,
            self._loader,
            self._documents.entries,
            self._documents.text,
            self._evidence,
            self._reading,
            self.telemetry.publish,
            lambda: self._closing,
        )
        self._race_making = RaceMaking(
            self._answering,
            settings.dense_layers,
            self._stored.all_turns,
            lambda: self._loader.model,
            self.documents,
            self._reading.measured,
        )
        self.races = Races(self._race_making.make, self._occupy, self._release, self.cancel, self.telemetry.tell)
        if self._data.is_written:
            self._settle()

    def _settle(self) -> None:
        """Settle what an ended process has left."""
        try:
            self.conversations.recover()
            self.conversations.purge_deleted(_DELETED_KEPT_S)
        except UserFacingError as error:
            # On a full disk, for instance, everything can still be read.
            self.notice = " ".join(filter(None, (self.notice, error.message)))

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

    def switch_model(
        self, model: str, context_tokens: int | None = None, weight_bits: int | None = None, stop_answers: bool = False
    ) -> None:
        """Begin to load another of the models on this machine; see `ModelPicker.switch`.

        Raises:
            UserFacingError: no such model, it does not fit, another is being loaded, or answers are being made.
        """
        self.models.switch(model, context_tokens, weight_bits, stop_answers)

    def _model_is_ready(self) -> None:
        self._reading.want_all()
        self._notices.note()
        # How full a conversation's window is, another model says otherwise.
        self.telemetry.tell_all({"type": "changed"})

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
        if conversation_id:
            return self.conversation(conversation_id)
        if continue_last:
            with suppress(UserFacingError):
                for summary in self.conversations.summaries()[:1]:
                    conversation = self.conversation(summary.conversation_id)
                    if not conversation.busy.locked() and self._open.claim(summary.conversation_id):
                        return conversation
        return self.new_conversation()

    def new_conversation(self, kept: bool = True) -> Conversation:
        """An empty conversation.

        Args:
            kept: store it, and read its documents ahead of its questions; without, it ends with the program, and its
                questions wait for all of its documents.
        """
        reason, conversation = self._data.notice if kept and not self._data.is_written else "", None
        if kept and self._data.is_written:
            try:
                conversation = self._stored.create()
            except UserFacingError as error:
                reason = error.message
        if conversation is None:
            conversation = Conversation(is_kept=False, unkept_reason=reason)
        self.telemetry.open(conversation.conversation_id)
        self._open.add(conversation)
        self._open.claim(conversation.conversation_id)
        return conversation

    def conversation(self, conversation_id: str) -> Conversation:
        """The conversation of that id, from the store if it must be.

        Raises:
            UserFacingError: if there is none.
        """
        conversation = self._open.find(conversation_id)
        if conversation is None:
            raise UserFacingError("There is no such conversation any more. Open another, or begin a new one.")
        return conversation

    def _load(self, conversation_id: str) -> Conversation | None:
        conversation = self._stored.load(conversation_id)
        if conversation is not None:
            self.telemetry.open(conversation_id)
            self._reading.want(conversation)
            self._index(conversation)
        return conversation

    def _put_away(self, conversation: Conversation) -> None:
        self._reading.forget(conversation)
        self.telemetry.forget(conversation.conversation_id)
        if self._loader.model is not None:
            close_session(conversation, self._loader.model.engine)

    def delete_conversation(self, conversation_id: str) -> None:
        """Take a conversation away, until `undelete_conversation`, for a day; what it answers is stopped.

        Raises:
            UserFacingError: if that cannot be stored.
        """
        self.conversations.delete(conversation_id)
        self.races.forget(conversation_id)
        conversation = self._open.take(conversation_id)
        if conversation is not None:
            conversation.is_deleted = True
            self.cancel(conversation)
            self._put_away(conversation)
        self._notices.note()

    def undelete_conversation(self, conversation_id: str) -> None:
        """Bring a deleted conversation back.

        Raises:
            UserFacingError: if it has gone for good.
        """
        self.conversations.undelete(conversation_id)
        self._notices.note()

    def rename_conversation(self, conversation_id: str, title: str) -> None:
        """Give a conversation a title.

        Raises:
            UserFacingError: an empty title, or no such conversation.
        """
        self.conversations.rename(conversation_id, title)
        conversation = self.conversation(conversation_id)
        self._stored.refresh_title(conversation)
        self._tell_changed(conversation)

    def conversation_summaries(self, search: str = "") -> list[ConversationSummary]:
        """The conversations that hold anything, the one used last first; with `search`, those that have its words."""
        return self.conversations.summaries(search)

    def is_answering(self, conversation_id: str) -> bool:
        """Whether an answer is being made in a conversation."""
        return any(
            conversation.conversation_id == conversation_id and conversation.running is not None
            for conversation in self._open.present()
        )

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
        conversation = self.conversation(conversation_id)
        names = [entry.name for entry in self.entries(conversation)]
        if kind == "markdown":
            return exported_markdown(conversation, names)
        return exported_json(conversation, names, self._stored.all_turns(conversation))

    def select_turn(self, conversation: Conversation, turn_id: str) -> None:
        """Go back to another branch: the one with that turn, down to its latest answer.

        Raises:
            UserFacingError: no such turn, or the conversation is answering.
        """
        with self._occupied(conversation) as conversation:
            self._stored.select_turn(conversation, turn_id)
        self._tell_changed(conversation)

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
        entry = self.library.add(path, name, password, take)
        self.attach_document(conversation, entry.document_id)
        return entry

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
        if (book := sample_book(document_id)) is None:
            raise UserFacingError("There is no such sample book. Reload the page.")
        entry = self.add_document(conversation, book.path)
        if entry.name == entry.file_name:
            self.library.rename(document_id, book.title)
        return self.library.entry(document_id)

    def sample_reading(self, book: SampleBook) -> SampleReading | None:
        """What reading a sample book takes here; None before the model is loaded."""
        if (model := self._loader.model) is None:
            return None
        return sample_reading(model, book, partial(self._rates.estimate, self._rates_key()))

    def _rates_key(self) -> str:
        """What makes the model faster or slower."""
        settings, status = self.settings, self._loader.status
        return f"{settings.model}, {status.device}, {settings.dtype}, {settings.weight_bits} bits"

    def attach_document(self, conversation: Conversation, document_id: str) -> None:
        """Give a conversation a document of the library; one that it has stays where it is.

        Raises:
            UserFacingError: no such document, or it cannot be stored.
        """
        conversation = self._present(conversation)
        if self._documents.attach(conversation, document_id):
            self._documents_changed(conversation)

    def remove_document(self, conversation: Conversation, document_id: str) -> None:
        """Take a document out of a conversation; it stays in the library.

        Raises:
            UserFacingError: if the conversation is answering, or that cannot be stored.
        """
        with self._occupied(conversation) as conversation:
            self._documents.take_out(conversation, document_id)
        self._documents_changed(conversation)

    def delete_document(self, document_id: str) -> None:
        """Remove a document from the library and all conversations, with all that models have kept of it.

        Raises:
            UserFacingError: if an answer uses it, or it cannot be removed.
        """
        present = self._open.present()
        if any(document_id in conversation.documents_in_use for conversation in present):
            name = self.library.entry(document_id).name
            raise UserFacingError(f"An answer is being made from {name}. Stop it, or wait for its end.")
        self._reading.stop_reading(document_id)
        self.viewer.forget(document_id)
        self.library.remove(document_id)
        self._loader.forget(document_id)
        for conversation in present:
            if document_id in conversation.document_ids:
                self._documents.take_out(conversation, document_id)
                self._documents_changed(conversation)
        self._notices.note()

    def _text_was_replaced(self, document_id: str) -> None:
        """Keep nothing of what was read of a document's old text; called by the thread that has recognised the new."""
        while not self._closing and any(document_id in one.documents_in_use for one in self._open.present()):
            # Answers that are being made end with the text that they have begun with.
            time.sleep(_IN_USE_POLL_S)
        self._reading.stop_reading(document_id)
        self._loader.forget(document_id)
        for conversation in self._open.present():
            if document_id in conversation.document_ids:
                self._documents.forget_text(conversation, document_id)
                self._documents_changed(conversation)

    def kept_bytes(self, document_id: str) -> int:
        """What models have kept of a document on the disk; 0 before the present one is loaded."""
        return 0 if self._loader.model is None else self._kept_bytes.of(document_id)

    def _documents_changed(self, conversation: Conversation) -> None:
        if conversation.is_kept:
            self._reading.want(conversation)
        self._index(conversation)
        self._tell_changed(conversation)

    def reading(self, document_id: str, conversation: Conversation) -> ReadingState:
        """How far a document is in a conversation.

        Raises:
            UserFacingError: if it is not in the library.
        """
        return self._reading.state(conversation, self.library.entry(document_id))

    def documents(self, conversation: Conversation) -> list[Document]:
        """Those of a conversation's documents whose text is there, in order."""
        return self._documents.texts(conversation)

    def _read_new_texts(self) -> None:
        self._reading.want_all()
        for conversation in self._open.present():
            self._index(conversation)
        self._notices.note()

    def _index(self, conversation: Conversation) -> None:
        self._evidence.prepare(lambda: [] if self._closing else self._documents.texts(conversation))

    def document_tokens(self, document_id: str) -> TokenCount | None:
        """Tokens of one document's text, counted if nobody has, which takes a second for a long book.

        None if its text is not there yet, or the model is not, by which they would be counted.
        """
        model, entry = self._loader.model, self.library.entry_or_none(document_id)
        if entry is None or entry.state != "read":
            return None
        reference = self._loader.settings.model
        kept = self.library.tokens(document_id, reference)
        if kept is not None:
            return TokenCount(*kept)
        if model is None:
            return None
        count = model.planner.document_tokens(self.library.document(document_id))
        with suppress(UserFacingError):
            # Counted again another time, no more.
            self.library.set_tokens(document_id, reference, count.tokens, count.is_exact)
        return count

    def counted_tokens(self) -> dict[str, TokenCount]:
        """Tokens of all documents that were counted for this model."""
        counted = self.library.all_tokens(self.settings.model)
        return {document_id: TokenCount(*tokens) for document_id, tokens in counted.items()}

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
        self._answering.check(question, options)
        conversation = self._occupy(conversation)
        try:
            turns = len(conversation.turns)
            kept_turns = turns if after_turn is None else min(max(0, after_turn), turns)
            conversation.options = options
            conversation.documents_in_use = tuple(conversation.document_ids)
            record = self._stored.begin_turn(conversation, question, kept_turns)
            running = self._begin_running(conversation, record, question, options)
        except BaseException:
            self._release(conversation)
            raise
        self._tell_changed(conversation)
        return running

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
        conversation = self._occupy(conversation)
        try:
            turn = conversation.turns[-1] if conversation.turns else None
            if turn is None or turn.turn_id != turn_id:
                raise UserFacingError("Only the last answer can go on. Ask a further question instead.")
            check_can_go_on(turn)
            self._answering.check(turn.question, options)
            conversation.documents_in_use = tuple(conversation.document_ids)
            record = ContinuedTurn(self._stored, conversation)
            record.begin()
            running = self._begin_running(conversation, record, turn.question, options, turn)
        except BaseException:
            self._release(conversation)
            raise
        self._tell_changed(conversation)
        return running

    def _begin_running(
        self,
        conversation: Conversation,
        record: TurnRecord,
        question: str,
        options: AnswerOptions,
        begun_turn: Turn | None = None,
    ) -> RunningAnswer:
        release, answer = partial(self._release, conversation), self._answering.answer
        running = RunningAnswer(
            question,
            record.turn_id,
            lambda _: answer(conversation, record, question, options, release, begun_turn),
            "" if begun_turn is None else begun_turn.answer,
        )
        conversation.running = running
        running.start()
        return running

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
        self._answering.check(request.question, request.options)
        return self.races.start(conversation, request)

    def race(self, conversation: Conversation, question: str, options: AnswerOptions) -> Iterator[Any]:
        """The events of a race, made as they are asked for; see `RaceMaking.make`."""
        self._answering.check(question, options)
        with self._occupied(conversation) as conversation:
            conversation.documents_in_use = tuple(conversation.document_ids)
            yield from self._race_making.make(conversation, RaceRequest(question, options))

    def race_outlook(self, conversation_id: str) -> dict[str, Any]:
        """What a race in a conversation would be; see `RaceMaking.outlook`.

        Raises:
            UserFacingError: if there is no such conversation.
        """
        return self._race_making.outlook(self.conversation(conversation_id))

    def cancel(self, conversation: Conversation) -> None:
        """Stop what runs in a conversation at its next chance; does nothing if nothing does."""
        conversation.cancelled.set()
        job = conversation.job
        if job is not None:
            job.cancel()

    def page_text(self, conversation_id: str, page: int) -> dict[str, Any]:
        """What KV page `page` of a conversation's last answer holds; see `app.chat.answers.provenance.page_text`.

        Raises:
            UserFacingError: if there is no such conversation, it has had no answer since the start, or no such page.
        """
        conversation = self.conversation(conversation_id)
        model = self._loader.model
        if conversation.plan is None or model is None:
            raise UserFacingError("Nothing has been read yet. Ask a question first.")
        return page_text(
            conversation.plan, list(conversation.generated), page, model.engine.page_size, model.tokenizer.decode
        )

    def document_pages(self, conversation_id: str) -> dict[str, Any]:
        """The document pages of a conversation's last answer; see `app.chat.answers.document_pages.document_pages`.

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
        if self._closing:
            return
        self._closing = True
        self._reading.close()
        self._notices.close()
        self._new_texts.close()
        running = [one.running for one in self._open.present() if one.running is not None]
        for conversation in self._open.present():
            self.cancel(conversation)
        end = time.monotonic() + _ANSWERS_END_S
        for answer in running:
            answer.join(max(0.0, end - time.monotonic()))
        self.models.close()
        self._loader.close()
        self._model_notices.close()
        self.model_downloads.close()
        self.viewer.close()
        self.library.close()
        self._data.close()

    def _present(self, conversation: Conversation) -> Conversation:
        """The conversation in memory of that id: one that was put away meanwhile may have been loaded again."""
        if conversation.is_deleted:
            raise UserFacingError("This conversation was deleted. Bring it back, or begin a new one.")
        self.telemetry.open(conversation.conversation_id)
        return self._open.add(conversation)

    def _occupy(self, conversation: Conversation) -> Conversation:
        """Keep a conversation to oneself, until `_release`."""
        conversation = self._present(conversation)
        if not conversation.busy.acquire(blocking=False):
            what = "racing" if self.races.is_running(conversation.conversation_id) else "answering"
            raise UserFacingError(f"This conversation is still {what}. Stop that, or wait for its end.")
        conversation.cancelled.clear()
        return conversation

    def _release(self, conversation: Conversation) -> None:
        was_answer = conversation.running is not None
        conversation.running, conversation.documents_in_use, conversation.model = None, (), None
        conversation.busy.release()
        if was_answer:
            self._tell_changed(conversation)

    @contextmanager
    def _occupied(self, conversation: Conversation) -> Iterator[Conversation]:
        conversation = self._occupy(conversation)
        try:
            yield conversation
        finally:
            self._release(conversation)

    def _tell_changed(self, conversation: Conversation) -> None:
        self.telemetry.tell(conversation.conversation_id, {"type": "changed"})
        self._notices.note()
