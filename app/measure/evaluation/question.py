"""Questions about long texts with known answers, and the long text that such a question is hidden in.

Pure text: nothing here knows a model, its tokenizer or a device. A token is what `count_tokens` counts, which must add
no special ones. The needle in a haystack follows RULER (arXiv 2404.06654, section 3).
"""

from __future__ import annotations

import re
import textwrap
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from random import Random
from typing import Literal

from app.errors import UserFacingError

CountTokens = Callable[[str], int]

FILLER_SENTENCES = (
    "The meadow is green.",
    "The sea is grey and the clouds are white.",
    "The sun goes up.",
    "A boat goes out and a boat comes home.",
    "The wind is low and the evening is long.",
    "So it goes.",
)
# Text without punctuation, such as a table, would otherwise be one endless sentence that fits nowhere.
LONGEST_SENTENCE_CHARS = 1000
# Where sentences end differs by the start, so that among this many starts one fills the space almost to the token.
STARTS_TRIED = 64
LEAST_FILL = 0.97
# Two are enough for a tokenizer whose parts add up only roughly.
FIT_ROUNDS = 8
SENTENCE_END = re.compile(
    r"""(?:(?<=[.!?])|(?<=[.!?]["'”’)]))(?<!\bMr\.)(?<!\bMrs\.)(?<!\bDr\.)(?<!\bSt\.)\s+""", re.UNICODE
)


@dataclass(frozen=True)
class LongQuestion:
    """A context, a question whose end the model completes, and what a right answer contains.

    `depth` is the relative place of the needle in the context, None where there is no single one.
    """

    task: str
    context: str
    question: str
    answers: tuple[str, ...]
    needs: Literal["all", "any"]
    max_new_tokens: int
    depth: float | None

    @property
    def prompt(self) -> str:
        """What the model completes, and what the sizes are measured on."""
        return join_prompt(self.context, self.question)


@dataclass
class Haystack:
    """Long text as sentences, to cut pieces of any size from."""

    name: str
    sentences: list[str]
    repeats: bool
    _counted_with: CountTokens | None = field(default=None, repr=False)
    _counts: list[int] = field(default_factory=list, repr=False)

    @classmethod
    def filler(cls) -> Haystack:
        """A few plain sentences, over and over: as long as anyone wants, and with nothing in it."""
        return cls("filler", list(FILLER_SENTENCES), repeats=True)

    @classmethod
    def from_text(cls, name: str, text: str) -> Haystack:
        """The sentences of a real text, its line breaks replaced by spaces."""
        sentences = SENTENCE_END.split(" ".join(text.split()))
        pieces = [piece for sentence in sentences for piece in textwrap.wrap(sentence, LONGEST_SENTENCE_CHARS)]
        return cls(name, pieces, repeats=False)

    def cut(self, tokens: int, count_tokens: CountTokens, offset: float = 0.0) -> list[str]:
        """Successive sentences of at most `tokens` tokens in all, and hardly fewer.

        Args:
            tokens: the most that the sentences, each with the space before it, may count together.
            count_tokens: counts a string's tokens; asked once per sentence for as long as it stays the same.
            offset: where to start, from 0.0 (the text's beginning) to 1.0 (so late that the text just suffices).

        Raises:
            UserFacingError: if the text is too short.
        """
        sentences, counts = self.sentences, self._count_sentences(count_tokens)
        if self.repeats:
            cycles = tokens // sum(counts) + 2
            sentences, counts = sentences * cycles, counts * cycles
        ends = list(accumulate(counts, initial=0))
        if ends[-1] < tokens:
            raise UserFacingError(
                f"{self.name} has {ends[-1]} tokens, {tokens} are needed. Give a longer one with --text."
            )
        last_start = bisect_right(ends, ends[-1] - tokens) - 1
        first = min(round(offset * last_start), max(0, last_start - STARTS_TRIED + 1))
        candidates = [
            (start, bisect_right(ends, ends[start] + tokens) - 1)
            for start in range(first, min(first + STARTS_TRIED, last_start + 1))
        ]
        start, stop = max(candidates, key=lambda candidate: ends[candidate[1]] - ends[candidate[0]])
        return sentences[start:stop]

    def _count_sentences(self, count_tokens: CountTokens) -> list[int]:
        if self._counted_with != count_tokens:
            # With the space before it, as most tokenizers make that a part of the first word.
            self._counts = [count_tokens(f" {sentence}") for sentence in self.sentences]
            self._counted_with = count_tokens
        return self._counts


@dataclass(frozen=True)
class Trial:
    """One question to be built: the text to hide it in, its size, its own random numbers and its needle's depth."""

    haystack: Haystack
    context_tokens: int
    depth: float
    random: Random
    count_tokens: CountTokens

    def hide(self, introduction: str, needles: list[tuple[float, str]], question: str) -> str:
        """The context that, with `question`, fills the trial's tokens: an introduction and text with the needles."""
        offset = self.random.random()

        def build(size_tokens: int) -> str:
            sentences = self.haystack.cut(size_tokens, self.count_tokens, offset)
            return f"{introduction}\n\n{plant(sentences, needles)}"

        return fit_context(build, question, self.context_tokens, self.count_tokens)


def spread_trials(
    task: str, haystack: Haystack, context_tokens: int, trials: int, seed: int, count_tokens: CountTokens
) -> Iterator[Trial]:
    """Trials with depths evenly spread from 0.05 to 0.95, each with random numbers of its own."""
    for index in range(trials):
        depth = 0.05 + 0.9 * index / (trials - 1) if trials > 1 else 0.5
        yield Trial(haystack, context_tokens, depth, Random(f"{task}/{seed}/{index}"), count_tokens)


def plant(sentences: list[str], needles: list[tuple[float, str]]) -> str:
    """The sentences as one text, each needle at the sentence end nearest to its relative depth in the characters."""
    ends = list(accumulate((len(sentence) + 1 for sentence in sentences), initial=0))
    planted = list(sentences)
    # From the back, so that the earlier places stay where they are.
    for depth, needle in reversed(sorted(needles, key=lambda needle: needle[0])):
        place = depth * ends[-1]
        planted.insert(min(range(len(ends)), key=lambda index: abs(ends[index] - place)), needle)
    return " ".join(planted)


def join_prompt(context: str, question: str) -> str:
    """The context and the question as one text, for the model to complete."""
    return f"{context}\n\n{question}"


def fit_context(build: Callable[[int], str], question: str, context_tokens: int, count_tokens: CountTokens) -> str:
    """The context that with `question` counts at most `context_tokens` tokens, and at least 97 % of them.

    Args:
        build: makes a context with about so many tokens of text in it; with 0, only what it always holds.

    Raises:
        UserFacingError: if the window is too small for the question, or the text cannot be cut so finely.
    """
    overhead_tokens = count_tokens(join_prompt(build(0), question))
    size_tokens = context_tokens - overhead_tokens
    if size_tokens > 0:
        for _ in range(FIT_ROUNDS):
            context = build(size_tokens)
            total_tokens = count_tokens(join_prompt(context, question))
            if LEAST_FILL * context_tokens <= total_tokens <= context_tokens:
                return context
            # The parts do not add up exactly in every tokenizer: ask for less, or more, in proportion.
            aim_tokens = (1 + LEAST_FILL) / 2 * context_tokens - overhead_tokens
            size_tokens = max(1, round(size_tokens * aim_tokens / max(1, total_tokens - overhead_tokens)))
    raise UserFacingError(
        f"A window of {context_tokens} tokens is too small: the question and its needles take {overhead_tokens}. "
        "Give a larger one with --context-tokens."
    )
