"""What the assistant is made of, and how its parts hear of each other.

Builds them in the order in which they need each other, and closes them. What they do for others, `app.chat.assistant`
says.
"""

from __future__ import annotations

import time

from app.chat.answers.answer_starts import AnswerStarts
from app.chat.answers.answering import Answering
from app.chat.answers.prompt_planning import reading_plan
from app.chat.answers.telemetry import TelemetryHub
from app.chat.change_notices import ChangeNotices
from app.chat.completions import Completions
from app.chat.conversations.conversation import Conversation
from app.chat.conversations.conversation_access import ConversationAccess
from app.chat.conversations.conversation_documents import ConversationDocuments
from app.chat.conversations.stored_conversations import StoredConversations
from app.chat.document_use import DocumentUse
from app.chat.engine_jobs import close_session
from app.chat.model_handover import ModelHandover
from app.chat.opened_data import OpenedData
from app.chat.reading.background_reading import BackgroundReading
from app.chat.reading.kept_bytes import KeptBytes
from app.chat.reading.reading_rates import RATES_FILE, ReadingRates
from app.chat.token_counts import TokenCounts
from app.errors import UserFacingError
from app.evidence.evidence import Evidence
from app.library.library import Library
from app.models.hub.hub_downloads import HubDownloads
from app.models.model_loader import ModelLoader
from app.models.model_picker import ModelPicker, remembered_settings
from app.race.race_making import RaceMaking
from app.race.races import Races
from app.settings import AppSettings
from app.store.conversation_store import ConversationStore
from app.viewer.document_viewer import DocumentViewer

# A deleted conversation can be brought back as long; one that never held anything goes after as long.
_DELETED_KEPT_S = 24 * 3600.0
# At the end, running answers have so long to keep what they have said.
_ANSWERS_END_S = 2.0


class AssistantParts:
    """The parts of one run of the app; arguments and errors are those of `Assistant`.

    Attributes:
        notice: what the user should be told of how the data folder was found; "" if all is well.
    """

    def __init__(self, settings: AppSettings, keep: bool, beside_another: bool, remembers_model: bool) -> None:
        self._closing = False
        self.data = OpenedData.open(settings, keep, beside_another)
        self.notice = self.data.notice
        self.telemetry = TelemetryHub()
        self.changes = ChangeNotices(lambda: self.telemetry.tell_all({"type": "library"}))
        self._new_texts = ChangeNotices(self._take_new_texts)
        self._model_changes = ChangeNotices(lambda: self.telemetry.tell_all({"type": "models"}))
        self.store = ConversationStore(self.data.database)
        self.stored = StoredConversations(self.store)
        self.kept_bytes = KeptBytes(self.data.engine_config.snapshot_dir)
        self._make_models(settings, remembers_model)
        self._make_documents(settings)
        self._make_conversations()
        self._make_model_choice(settings)
        self._make_answers(settings)
        if self.data.is_written:
            self._settle()

    def _make_models(self, settings: AppSettings, remembers_model: bool) -> None:
        remembered = remembered_settings(settings) if remembers_model and not settings.engine_url else None
        self.loader = ModelLoader(
            remembered or settings,
            self.data.engine_config,
            self._take_model,
            self._model_changes.note,
            fallback=settings if remembered else None,
        )
        self.downloads = HubDownloads(
            self.data.folder / "model-downloads.json" if self.data.is_written else None,
            settings.offline,
            self._model_changes.note,
        )

    def _make_documents(self, settings: AppSettings) -> None:
        self.library = Library(
            self.data.folder,
            self.data.database,
            self._new_texts.note,
            lambda document_id: self.use.take_new_text(document_id),
            settings.ocr_languages,
        )
        self.viewer = DocumentViewer(self.library)
        self.documents = ConversationDocuments(self.library, self.stored, self.tell_changed)
        self.tokens = TokenCounts(self.library, self.loader)
        self.rates = ReadingRates(self.data.folder / RATES_FILE, is_written=self.data.is_written)
        self.reading = BackgroundReading(
            self.loader,
            self.documents.readable,
            reading_plan,
            self.documents.note_read,
            self.changes.note,
            lambda timer: self.rates.note(self.rates_key(), timer.rates()),
        )

    def _make_conversations(self) -> None:
        self.evidence = Evidence()
        self.access = ConversationAccess(
            self.store,
            self.stored,
            self.data.notice,
            self.data.is_written,
            self.telemetry.is_watched,
            self.telemetry.open,
            lambda conversation: self.use.take_in(conversation),
            self._put_away,
            self.tell_changed,
            lambda conversation_id: "racing" if self.races.is_running(conversation_id) else "answering",
        )
        self.use = DocumentUse(
            self.library,
            self.documents,
            self.access,
            self.reading,
            self.evidence,
            self.loader.forget,
            self.tell_changed,
            self.is_closing,
        )

    def _make_model_choice(self, settings: AppSettings) -> None:
        self.completions = Completions(self.loader, settings.dense_layers)
        handover = ModelHandover(
            self.access.present, self.access.cancel, self.completions, self.reading, self.store.forget_reads
        )
        self.models = ModelPicker(
            settings,
            settings.data_dir,
            self.data.is_written and not self.data.is_temporary,
            self.loader,
            handover,
            self._model_changes.note,
        )

    def _make_answers(self, settings: AppSettings) -> None:
        self.answering = Answering(
            settings,
            self.loader,
            self.documents.entries,
            self.documents.text,
            self.evidence,
            self.reading,
            self.telemetry.publish,
            self.is_closing,
        )
        self.starts = AnswerStarts(self.access, self.stored, self.answering, self.tell_changed)
        self.race_making = RaceMaking(
            self.answering,
            settings.dense_layers,
            self.stored.all_turns,
            lambda: self.loader.model,
            self.documents.texts,
            self.reading,
        )
        self.races = Races(
            self.race_making.make, self.access.occupy, self.access.release, self.access.cancel, self.telemetry.tell
        )

    def _settle(self) -> None:
        """Settle what an ended process has left."""
        try:
            self.store.recover()
            self.store.purge_deleted(_DELETED_KEPT_S)
        except UserFacingError as error:
            # On a full disk, for instance, everything can still be read.
            self.notice = " ".join(filter(None, (self.notice, error.message)))

    def is_closing(self) -> bool:
        """Whether the program ends."""
        return self._closing

    def rates_key(self) -> str:
        """What makes the model read faster or slower."""
        settings, status = self.loader.settings, self.loader.status
        return f"{settings.model}, {status.device}, {settings.dtype}, {settings.weight_bits} bits"

    def tell_changed(self, conversation: Conversation) -> None:
        """Tell those who watch a conversation, and the lists, that it has changed."""
        self.telemetry.tell(conversation.conversation_id, {"type": "changed"})
        self.changes.note()

    def close(self) -> None:
        """Cancel all, keep what was said, and let the engine and the data folder go; further calls do nothing."""
        if self._closing:
            return
        self._closing = True
        self.reading.close()
        self.changes.close()
        self._new_texts.close()
        running = [one.running for one in self.access.present() if one.running is not None]
        for conversation in self.access.present():
            self.access.cancel(conversation)
        end = time.monotonic() + _ANSWERS_END_S
        for answer in running:
            answer.join(max(0.0, end - time.monotonic()))
        self.models.close()
        self.loader.close()
        self._model_changes.close()
        self.downloads.close()
        self.viewer.close()
        self.library.close()
        self.data.close()

    def _take_model(self) -> None:
        self.reading.want_all()
        self.changes.note()
        # How full a conversation's window is, another model says otherwise.
        self.telemetry.tell_all({"type": "changed"})

    def _take_new_texts(self) -> None:
        self.use.take_new_texts()
        self.changes.note()

    def _put_away(self, conversation: Conversation) -> None:
        self.reading.forget(conversation)
        self.telemetry.forget(conversation.conversation_id)
        if self.loader.model is not None and not self.loader.model.is_remote:
            close_session(conversation, self.loader.model.engine)
