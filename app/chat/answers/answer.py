"""An answer: its options, the events it sends, and the report on how it was made.

Plain data, without torch or a model, so that the page, the server and the terminal can build and read it. How the
tokens come about belongs to `app.chat.answers.answer_run`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from app.chat.answers.reads.provenance import PageShare
from app.chat.prompt.plan import DEFAULT_SYSTEM_PROMPT
from app.chat.prompt.turn_passages import TurnPassages
from app.errors import UserFacingError
from app.evidence.citation import Citation, EvidencePassage, UnsupportedSentence
from app.settings import AppSettings
from quest_core.config import AttentionSetting, QuestConfig, SamplingConfig

if TYPE_CHECKING:
    from quest_core.session_events import PrefillProgress

FinishReason = Literal["stop", "length", "context", "cancelled", "engine"]


@dataclass(frozen=True)
class AnswerOptions:
    """What may change from one answer to the next.

    Args:
        attention: as in `quest_core.config.QuestConfig`.
        token_budget: tokens attended per layer and kv head with Quest.
        temperature: 0 is greedy.
        top_p, top_k, min_p, repetition_penalty, seed: as in `quest_core.config.SamplingConfig`.
        max_new_tokens: the longest answer, without a thought before it; that much of the window is kept free for it.
        system_prompt: what the model is told about its task.
        stop: texts that end the answer and are not part of it.
    """

    attention: AttentionSetting = AppSettings.attention
    token_budget: int = QuestConfig.token_budget
    temperature: float = SamplingConfig.temperature
    top_p: float = SamplingConfig.top_p
    top_k: int = SamplingConfig.top_k
    min_p: float = SamplingConfig.min_p
    repetition_penalty: float = SamplingConfig.repetition_penalty
    max_new_tokens: int = 256
    system_prompt: str = DEFAULT_SYSTEM_PROMPT
    seed: int | None = None
    stop: Sequence[str] = ()

    def quest_config(self, page_size: int, dense_layers: int) -> QuestConfig:
        """The engine's part of the options; page size and dense layers are the program's.

        Raises:
            UserFacingError: for a value out of range.
        """
        try:
            quest = QuestConfig(attention=self.attention, token_budget=self.token_budget, dense_layers=dense_layers)
            if quest.attention != "dense":
                quest.budget_pages(page_size)
        except ValueError as error:
            raise UserFacingError(f"{error}".rstrip(".") + ". Change the setting.") from error
        return quest

    def sampling_config(self, stop_token_ids: Sequence[int]) -> SamplingConfig:
        """How tokens are drawn.

        Raises:
            UserFacingError: for a value out of range.
        """
        try:
            return SamplingConfig(
                temperature=self.temperature,
                top_p=self.top_p,
                top_k=self.top_k,
                min_p=self.min_p,
                repetition_penalty=self.repetition_penalty,
                seed=self.seed,
                max_new_tokens=self.max_new_tokens,
                stop_token_ids=tuple(stop_token_ids),
            )
        except ValueError as error:
            raise UserFacingError(f"{error}. Change the setting.") from error


@dataclass(frozen=True)
class PageReference:
    """A document page, by the name of its document and its label."""

    document: str
    page_label: str


@dataclass(frozen=True)
class DocumentReport:
    """The conversation's documents together.

    Args:
        pages: document pages.
        tokens: of their text.
        tokens_in_context: how many of these the model had.
        picture_pages, unreadable_pages, garbled_pages: pages without text that could be read; see
            `app.library.Document`.
        recognised_pages: pages whose text was recognised in pictures, and may have errors.
        tokens_are_exact: False if `tokens` is an estimate, as for texts that are far longer than the window.
    """

    pages: int
    tokens: int
    tokens_in_context: int
    picture_pages: tuple[PageReference, ...] = ()
    unreadable_pages: tuple[PageReference, ...] = ()
    garbled_pages: tuple[PageReference, ...] = ()
    recognised_pages: tuple[PageReference, ...] = ()
    tokens_are_exact: bool = True

    def to_json(self) -> dict[str, Any]:
        """For a JSON file; lists of pages are there only if they name any, "tokens_estimated" only if it is true."""
        values = {name: value for name, value in asdict(self).items() if value != ()}
        return values if values.pop("tokens_are_exact") else {**values, "tokens_estimated": True}


@dataclass(frozen=True)
class PassagesReport:
    """What was in context of documents that are longer than the window.

    Args:
        pages: those of which at least a passage was in context, in order.
        passages: how many there were.
        found_words, missing_words: those of the question by whether they occur in the documents; see
            `app.library.QuestionWords`. With no word found, the passages are the documents' beginnings, or those of
            earlier questions.
        added: which of them this question has brought; None of an answer that an older version made.
        searched_for: the question's translation, which was searched for, too; "" for none.
    """

    pages: tuple[PageReference, ...]
    passages: int
    found_words: tuple[str, ...]
    missing_words: tuple[str, ...]
    added: TurnPassages | None = None
    searched_for: str = ""


@dataclass(frozen=True)
class AnswerReport:
    """How an answer was made.

    Args:
        answer: its text.
        model, device: names.
        attention, token_budget, page_size: as asked for.
        document: sizes of the documents.
        prompt_tokens: length of the prompt; `reused_tokens` of them had not to be computed, because the cache had them
            or the disk: `restored_tokens` came from there, in `restored_bytes`.
        prefill_s: seconds spent on the others.
        time_to_first_token_s: from the submission, waiting in the queue included.
        decode_tokens: tokens of the answer, without the stop token.
        decode_tokens_per_s: decode steps over their own time; 0 if there were none. The first token comes from the
            prefill and is not counted.
        finish_reason: "stop", "length", "context", "cancelled", or "engine": another engine has cut it.
        tokens_estimated: whether another engine has told no counts: `prompt_tokens` is an estimate then, and
            `reused_tokens` not known.
        engine_reason: why it has, in its own word, e.g. "content_filter"; "" otherwise.
        attended_tokens: those that each of its steps read, averaged over layers, kv heads and steps; None if no step is
            known to have read any.
        read_all: whether every step read all of the context, whose length at the end is `attended_tokens` then.
        pages_read: document pages by their share of the page reads.
        passages: what was in context if the documents were too long for the window; else None.
        stretch_factor: by how much the model's positions were stretched; 1 if they were its own.
        thinking: what the model thought before it answered; `thinking_tokens` of it are not in `decode_tokens`.
        left_out: names of the documents that were still being read for the first time and are not in the prompt.
        warning: sentences about what went wrong beside the answer: it could not be saved, or a document of the
            conversation cannot be read; "" if all is well.
        passages_found: those of the whole documents that bear on the question, best first.
        citations: what supports the answer's sentences, in their order; `unsupported` are those without support.
        drafted_tokens: that speculative decoding drafted; `accepted_tokens` of them were what dense attention gives.
        options, document_ids, thinking_token_ids: what the answer was asked with, the documents in its prompt, and the
            tokens of the thought before it: with these it can go on; None and () of an older version's.
    """

    answer: str
    model: str
    device: str
    attention: str
    token_budget: int
    page_size: int
    document: DocumentReport
    prompt_tokens: int
    reused_tokens: int
    prefill_s: float
    time_to_first_token_s: float | None
    decode_tokens: int
    decode_tokens_per_s: float
    finish_reason: FinishReason
    attended_tokens: float | None = None
    read_all: bool = False
    pages_read: tuple[PageShare, ...] = ()
    passages: PassagesReport | None = None
    stretch_factor: float = 1.0
    thinking: str = ""
    thinking_tokens: int = 0
    restored_tokens: int = 0
    restored_bytes: int = 0
    left_out: tuple[str, ...] = ()
    warning: str = ""
    passages_found: tuple[EvidencePassage, ...] = ()
    citations: tuple[Citation, ...] = ()
    unsupported: tuple[UnsupportedSentence, ...] = ()
    options: AnswerOptions | None = None
    document_ids: tuple[str, ...] = ()
    thinking_token_ids: tuple[int, ...] = ()
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    engine_reason: str = ""
    tokens_estimated: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing was said: stopped before the first token, or ended by the model at once."""
        return not self.answer.strip()

    def to_json(self) -> dict[str, Any]:
        """The report for a JSON file, without `stretch_factor` and what an answer needs to go on.

        `context` is there only if passages were used, its `searched_for` only if the question was translated,
        `thinking` and `thinking_tokens` only if the model thought first,
        `left_out`, `warning` and `engine_reason` only if they say something, `drafted_tokens` and `accepted_tokens`
        only if any were drafted, `tokens_estimated` only if it is true.
        """
        values = {**asdict(self), "document": self.document.to_json()}
        passages = values.pop("passages")
        for name in ("stretch_factor", "options", "document_ids", "thinking_token_ids"):
            del values[name]
        if not self.thinking_tokens:
            del values["thinking"], values["thinking_tokens"]
        if not self.drafted_tokens:
            del values["drafted_tokens"], values["accepted_tokens"]
        for name in ("left_out", "warning", "engine_reason", "tokens_estimated"):
            if not values[name]:
                del values[name]
        for name in ("pages_read", "passages_found", "citations", "unsupported"):
            values[name] = list(values[name])
        if passages is not None:
            values["context"] = {"mode": "passages", **{name: value for name, value in passages.items() if value != ""}}
        return values

    def to_stored(self) -> dict[str, Any]:
        """All of the report for `from_stored`, in what JSON has."""
        return asdict(self)

    @classmethod
    def from_stored(cls, values: dict[str, Any]) -> AnswerReport | None:
        """The report that `to_stored` made; None if another version made it, and what it lacks is needed."""
        try:
            document = _of_known_fields(DocumentReport, values["document"])
            passages, options = values.get("passages"), values.get("options")
            return replace(
                _of_known_fields(cls, values),
                document=replace(
                    document,
                    picture_pages=_page_references(document.picture_pages),
                    unreadable_pages=_page_references(document.unreadable_pages),
                    garbled_pages=_page_references(document.garbled_pages),
                    recognised_pages=_page_references(document.recognised_pages),
                ),
                pages_read=tuple(PageShare(**share) for share in values.get("pages_read", ())),
                passages=passages and _passages_report(passages),
                left_out=tuple(values.get("left_out", ())),
                passages_found=tuple(EvidencePassage(**one) for one in values.get("passages_found", ())),
                citations=tuple(Citation(**one) for one in values.get("citations", ())),
                unsupported=tuple(UnsupportedSentence(**one) for one in values.get("unsupported", ())),
                options=options and _options(options),
                document_ids=tuple(values.get("document_ids", ())),
                thinking_token_ids=tuple(values.get("thinking_token_ids", ())),
            )
        except (AttributeError, KeyError, TypeError):
            return None


def _of_known_fields(report_class: type, values: dict[str, Any]) -> Any:
    return report_class(**{field.name: values[field.name] for field in fields(report_class) if field.name in values})


def _options(values: dict[str, Any]) -> AnswerOptions:
    return _of_known_fields(AnswerOptions, values | {"stop": tuple(values.get("stop", ()))})


def _page_references(values: Sequence[dict[str, Any]]) -> tuple[PageReference, ...]:
    return tuple(PageReference(**value) for value in values)


def _passages_report(values: dict[str, Any]) -> PassagesReport:
    found, missing = tuple(values["found_words"]), tuple(values["missing_words"])
    added = values.get("added") and TurnPassages.from_stored(values["added"])
    searched_for = values.get("searched_for", "")
    return PassagesReport(_page_references(values["pages"]), values["passages"], found, missing, added, searched_for)


@dataclass(frozen=True)
class Queued:
    """The question waits for `jobs_ahead` others."""

    jobs_ahead: int


@dataclass(frozen=True)
class ModelLoading:
    """The question waits for the model; `message` says how far it is."""

    message: str


@dataclass(frozen=True)
class DocumentReading:
    """The question waits for the text of a document: `share` of it, 0 to 1, has come; None if nobody can say."""

    name: str
    share: float | None


@dataclass(frozen=True)
class PassagesFound:
    """The passages of the whole documents that bear on the question, best first; comes before the model speaks."""

    passages: tuple[EvidencePassage, ...]


@dataclass(frozen=True)
class PrefillEvent:
    """The model reads the prompt.

    Args:
        progress: how far the engine is.
        remaining_s: an estimate of the time left, None until one chunk has been timed.
    """

    progress: PrefillProgress
    remaining_s: float | None


@dataclass(frozen=True)
class TokenEvent:
    """One token more.

    Args:
        text_delta: new text; may be empty while a character or a possible stop string is incomplete.
        answer: all text so far.
        step: 0 for the first token.
        step_s: seconds this step took.
        tokens_per_s: 1 / step_s, smoothed over the last steps; None for the first token.
        mean_tokens_per_s: over all decode steps so far; None for the first token.
        thinking: all that the model has thought so far before its answer, in `thinking_tokens`.
    """

    text_delta: str
    answer: str
    step: int
    step_s: float
    tokens_per_s: float | None
    mean_tokens_per_s: float | None
    thinking: str = ""
    thinking_tokens: int = 0


@dataclass(frozen=True)
class Finished:
    """The answer is complete, or was cancelled. If `report.is_empty`, it is not kept as a turn."""

    report: AnswerReport


AnswerEvent = ModelLoading | DocumentReading | PassagesFound | Queued | PrefillEvent | TokenEvent | Finished
