"""Which document pages an answer's tokens attend to, above what pages at their place get from any text.

After an answer its tokens are run once more, in one piece, over the same context: with dense attention and with Quest
alike, so that what is compared does not depend on what a budget has left out. What a page gets by its position and by
its nearness is known from a text that asks for nothing in particular, run after the same documents. Knows nothing of
sentences' support.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from app.chat.prompt.plan import PromptPlan

if TYPE_CHECKING:
    from quest_core.engine import Cancellation
    from quest_core.session import Session

# A question and an answer that could be of any text.
_NEUTRAL_QUESTION = "\n\nWhat is this document about?\n\n"
_NEUTRAL_ANSWER = (
    "It tells of several things, one after the other, and says more about some of them than about others. "
    "The text says what happened, who was there, and what they did then."
)
# Longer answers are looked at as far as this, which takes a tenth of a second on a GPU.
_MOST_TOKENS = 128
# No longer than that before the answer is told to be complete.
_MOST_S = 1.0
_KEPT_BASELINES = 16
NEUTRAL_TEXTS = (_NEUTRAL_QUESTION, _NEUTRAL_ANSWER)
# Added to both attentions that are compared, over the number of pages: a page that hardly gets any says nothing.
_LEAST_ATTENTION = 2e-3


@dataclass(frozen=True)
class AnswerReads:
    """What an answer's tokens attended to.

    Args:
        pages: document id and page index of each page in context.
        attention: float32 [layers, tokens, pages], averaged over the heads; of the first tokens of the answer.
        usual: float32 [layers, pages], what a neutral text gives the same pages.
    """

    pages: tuple[tuple[str, int], ...]
    attention: np.ndarray
    usual: np.ndarray

    def scores(self, start_token: int = 0, end_token: int | None = None) -> dict[tuple[str, int], float]:
        """How many times as much as usual each page got from these tokens of the answer; empty if none was looked at.

        The factor of each layer counts the same: a layer that looks at one place tells more than one which looks
        everywhere, but gives that place no more of its attention.
        """
        attention = self.attention[:, start_token:end_token]
        if not attention.shape[1]:
            return {}
        least = _LEAST_ATTENTION / len(self.pages)
        factors = ((attention.mean(axis=1) + least) / (self.usual + least)).mean(axis=0)
        return dict(zip(self.pages, factors.tolist(), strict=True))


class ReadBaselines:
    """What pages of a context get from a neutral text; kept for the contexts used last.

    Args:
        encode: text -> token ids.
    """

    def __init__(self, encode: Callable[[str], Sequence[int]]) -> None:
        self._question = list(encode(_NEUTRAL_QUESTION))
        self._answer = list(encode(_NEUTRAL_ANSWER))
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()

    def watch(
        self,
        session: Session,
        plan: PromptPlan,
        answer_start: int,
        answer_token_ids: Sequence[int],
        cancellation: Cancellation,
        most_s: float = _MOST_S,
    ) -> AnswerReads | None:
        """Look where the tokens of an answer attend; call inside a job, with the session that has just answered.

        Args:
            session: begins with the tokens of `plan`; stays as it is.
            plan: the prompt.
            answer_start: how many tokens stand before the answer: the prompt, and a thought.
            answer_token_ids: the answer.
            cancellation: asked now and then.
            most_s: how long looking may take, about; what there was no time for is left out.

        Returns:
            None if the prompt has no document pages, or there was no room or no time to look.
        """
        from quest_core.cache.paged_kv_cache import PoolExhausted

        spans = [span for span in plan.spans if span.document is not None]
        if not spans or not answer_token_ids:
            return None
        token_ranges = [(span.start_token, span.end_token) for span in spans]
        pages = [(span.document.document_id, span.page_index) for span in spans]
        try:
            usual = self._usual(session, plan, token_ranges, cancellation, most_s)
            if usual is None:
                return None
            attention = _watch(
                session, answer_start, list(answer_token_ids[:_MOST_TOKENS]), token_ranges, cancellation, most_s
            )
        except (PoolExhausted, ValueError):
            # Without room for a few tokens more the answer goes without.
            return None
        if attention is None:
            return None
        names, owners = _owners(pages)
        return AnswerReads(names, attention @ owners, usual @ owners)

    def _usual(
        self,
        session: Session,
        plan: PromptPlan,
        token_ranges: list[tuple[int, int]],
        cancellation: Cancellation,
        most_s: float,
    ) -> np.ndarray | None:
        end = token_ranges[-1][1]
        key = hash((tuple(plan.token_ids[:end]), tuple(token_ranges)))
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        attention = _watch(session, end, self._answer, token_ranges, cancellation, most_s, self._question)
        if attention is None:
            return None
        usual = attention.mean(axis=1)
        with self._lock:
            self._kept[key] = usual
            while len(self._kept) > _KEPT_BASELINES:
                self._kept.popitem(last=False)
        return usual


def sentence_reads(
    reads: AnswerReads, answer: str, token_ids: Sequence[int], decode: Callable[[Sequence[int]], str]
) -> Callable[[int, int], dict[tuple[str, int], float]]:
    """Tells of a sentence of an answer, by its characters, how many times as much as usual each page was attended to.

    Args:
        reads: of the answer.
        answer: its text.
        token_ids: its tokens.
        decode: token ids -> text.
    """
    watched = reads.attention.shape[1]
    # An answer's text begins where the first token's blanks end.
    blanks = len(decode(token_ids)) - len(decode(token_ids).lstrip()) if not answer[:1].isspace() else 0
    ends = [len(decode(token_ids[: count + 1])) - blanks for count in range(min(watched, len(token_ids)))]

    def of_sentence(start_char: int, end_char: int) -> dict[tuple[str, int], float]:
        first = bisect_right(ends, start_char)
        return reads.scores(first, bisect_left(ends, end_char) + 1) if first < watched else {}

    return of_sentence


def _watch(
    session: Session,
    start: int,
    token_ids: list[int],
    token_ranges: list[tuple[int, int]],
    cancellation: Cancellation,
    most_s: float,
    before: Sequence[int] = (),
) -> np.ndarray | None:
    """float32 [layers, tokens, ranges] of `token_ids`, after the session's first `start` tokens and `before`."""
    fork = session.fork()
    try:
        fork.truncate(start)
        watched = fork.watch_attention(list(before), token_ids, token_ranges, cancellation, most_s)
    finally:
        fork.close()
    return None if watched is None else watched.numpy()


def _owners(pages: Sequence[tuple[str, int]]) -> tuple[tuple[tuple[str, int], ...], np.ndarray]:
    """The pages without repetition, and which span is of which: float32 [spans, pages]."""
    names = tuple(dict.fromkeys(pages))
    indices = {name: index for index, name in enumerate(names)}
    owners = np.zeros((len(pages), len(names)), dtype=np.float32)
    for span, page in enumerate(pages):
        owners[span, indices[page]] = 1.0
    return names, owners
