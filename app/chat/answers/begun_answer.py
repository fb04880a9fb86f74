"""An answer that was cut and goes on: what there is of it, and the report on the whole.

It goes on from the very tokens that were drawn, after the very prompt that they were drawn for, so that a greedy answer
in two pieces is the answer that a greater limit would have given. Knows nothing of the engine or of how turns are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from app.chat.answers.answer import AnswerOptions, AnswerReport
from app.chat.answers.reads.provenance import PageShare
from app.chat.conversations.conversation import Turn
from app.errors import UserFacingError

if TYPE_CHECKING:
    from app.chat.answers.answer_work import Thinking
    from app.chat.answers.thought_stream import ThoughtStream


@dataclass(frozen=True)
class BegunAnswer:
    """What goes on.

    Args:
        turn: as it was kept.
        thought_token_ids: what comes between the prompt and the answer: a thought with its tags.
        answer_token_ids: of the answer, in the present model's tokens.
    """

    turn: Turn
    thought_token_ids: tuple[int, ...]
    answer_token_ids: tuple[int, ...]

    @classmethod
    def of(cls, turn: Turn, own_token_ids: Sequence[int], thinking: Thinking) -> BegunAnswer:
        """What there is of a turn's answer.

        Args:
            turn: as it was kept.
            own_token_ids: of its answer in the present model's tokens; another may have drawn those that were kept.
            thinking: how the model thinks.
        """
        own = tuple(own_token_ids)
        drawn_by_it = turn.report is not None and own == turn.answer_token_ids
        thought = turn.report.thinking_token_ids if drawn_by_it else ()
        if not thought and thinking.opened:
            # The prompt opens a thought, and none is known: it is closed again.
            thought = thinking.closing_token_ids
        return cls(turn, tuple(thought), own)

    @property
    def token_ids(self) -> tuple[int, ...]:
        """All that follows the prompt."""
        return (*self.thought_token_ids, *self.answer_token_ids)

    @property
    def thought(self) -> str:
        return "" if self.turn.report is None else self.turn.report.thinking

    def push(self, text: ThoughtStream) -> None:
        """Bring a new stream of text to where the answer was cut."""
        for token_id in self.token_ids:
            text.push(token_id)

    def whole_report(self, piece: AnswerReport) -> AnswerReport:
        """The report on both pieces.

        Args:
            piece: on the new one, but with the whole answer; sources are left to the caller.
        """
        first = self.turn.report
        if first is None:
            return piece
        return replace(
            first,
            answer=piece.answer,
            model=piece.model,
            device=piece.device,
            decode_tokens=piece.decode_tokens,
            decode_tokens_per_s=_joined_rate(first, piece),
            finish_reason=piece.finish_reason,
            attended_tokens=piece.attended_tokens,
            read_all=first.read_all and piece.read_all,
            pages_read=_joined_shares(first, piece),
            options=piece.options,
            warning="",
            drafted_tokens=first.drafted_tokens + piece.drafted_tokens,
            accepted_tokens=first.accepted_tokens + piece.accepted_tokens,
        )


def check_can_go_on(turn: Turn) -> None:
    """Refuse what has come to its end.

    Raises:
        UserFacingError: if the model has ended the answer itself, or there is no word to go on from.
    """
    if turn.report is not None and turn.report.finish_reason == "stop" and turn.state == "finished":
        raise UserFacingError("This answer is complete. Ask a further question instead.")
    if not turn.answer_token_ids:
        raise UserFacingError("There is no word yet that this answer could go on from. Ask its question again.")


def options_to_go_on(turn: Turn, present: AnswerOptions) -> AnswerOptions:
    """Those that the answer began with, and the present limit for what is added to it."""
    begun_with = turn.report.options if turn.report is not None else None
    return present if begun_with is None else replace(begun_with, max_new_tokens=present.max_new_tokens)


def window_is_full(context_tokens: int) -> UserFacingError:
    """Why an answer cannot go on that has reached the end of the window."""
    return UserFacingError(
        f"This answer has filled the model's window of {context_tokens:,} tokens and cannot go on. Ask in a new chat, "
        "with fewer documents, or start with more --context-tokens."
    )


def _joined_rate(first: AnswerReport, piece: AnswerReport) -> float:
    """Tokens/s over both pieces; the first token of either comes of no step of its own."""
    rates = (first.decode_tokens_per_s, piece.decode_tokens_per_s)
    steps = (max(0, first.decode_tokens - 1), max(0, piece.decode_tokens - first.decode_tokens - 1))
    timed = [(count, rate) for count, rate in zip(steps, rates, strict=True) if count and rate]
    total_s = sum(count / rate for count, rate in timed)
    return sum(count for count, _ in timed) / total_s if total_s else max(rates)


def _joined_shares(first: AnswerReport, piece: AnswerReport) -> tuple[PageShare, ...]:
    """Pages by their share of the reads of both pieces, each piece weighing as much as it has tokens."""
    tokens = max(1, piece.decode_tokens)
    new = max(0, piece.decode_tokens - first.decode_tokens)
    joined: dict[tuple[str, int, str, str], PageShare] = {}
    for report, weight in ((first, (tokens - new) / tokens), (piece, new / tokens)):
        for page in report.pages_read:
            key = (page.document_id, page.page_index, page.document, page.page_label)
            before = joined[key].share if key in joined else 0.0
            joined[key] = replace(page, share=before + weight * page.share, read_score=None)
    return tuple(sorted(joined.values(), key=lambda page: -page.share))
