"""Lists of words whose most frequent ones are asked for: tasks that a few pages of the context cannot answer.

Common words and frequent words after RULER (arXiv 2404.06654, section 3), without its worked example. There is no
haystack: the list itself fills the window. Nothing here knows who counts, or how the answers are scored.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from app.errors import UserFacingError
from app.measure.evaluation.extraction.word_list import ADJECTIVES, NOUNS
from app.measure.evaluation.question import LongQuestion, Trial, fit_context

WANTED_WORDS = 3
# A common word stands ten times as often as any other, as in RULER.
COMMON_TIMES = 10
ZIPF_EXPONENT = 2.0
CODED_WORDS = 500
# With fewer, the third and the fourth of Zipf's frequencies are too close.
LEAST_LISTED_WORDS = 40
ANSWER_TOKENS = 48


def ask_common_words(task: str, trial: Trial) -> LongQuestion:
    """A numbered list of words in which three stand ten times as often as the others."""
    words = trial.random.sample(NOUNS + ADJECTIVES, len(NOUNS + ADJECTIVES))
    common, others = words[:WANTED_WORDS], words[WANTED_WORDS:]

    def list_words(length: int) -> list[str]:
        rounds = max(1, length // (WANTED_WORDS * COMMON_TIMES + len(others)))
        rare = [others[index % len(others)] for index in range(length - WANTED_WORDS * COMMON_TIMES * rounds)]
        return common * COMMON_TIMES * rounds + rare

    return _ask(
        task,
        trial,
        "Below is a numbered list of words. Some of them stand in it far more often than the others.",
        common,
        list_words,
        lambda number, word: f"{number}. {word}",
    )


def ask_frequent_words(task: str, trial: Trial) -> LongQuestion:
    """Coded words whose frequencies fall by Zipf's law; the three most frequent are wanted."""
    codes = _make_codes(trial.random)

    def list_words(length: int) -> list[str]:
        return [code for code, times in zip(codes, _zipf_counts(length), strict=True) for _ in range(times)]

    return _ask(
        task,
        trial,
        "Below is a text in coded words. Some of them stand in it more often than the others.",
        codes[:WANTED_WORDS],
        list_words,
        lambda number, word: word,
    )


def _ask(
    task: str,
    trial: Trial,
    introduction: str,
    wanted: list[str],
    list_words: Callable[[int], list[str]],
    write_item: Callable[[int, str], str],
) -> LongQuestion:
    """List as many words as the window takes, in random order."""
    question = (
        f"What are the {WANTED_WORDS} most frequent words above? Answer: The {WANTED_WORDS} most frequent words are"
    )
    order_seed = trial.random.random()

    def write_list(length: int) -> str:
        words = list_words(length)
        # The same order for the same length, however often the fitting asks.
        Random(order_seed).shuffle(words)
        return " ".join(write_item(number, word) for number, word in enumerate(words, start=1))

    tokens_per_word = trial.count_tokens(write_list(LEAST_LISTED_WORDS)) / LEAST_LISTED_WORDS

    def build(size_tokens: int) -> str:
        if size_tokens == 0:
            return introduction
        length = round(size_tokens / tokens_per_word)
        if length < LEAST_LISTED_WORDS:
            raise UserFacingError(
                f"A window of {trial.context_tokens} tokens holds {length} listed words, {task} needs "
                f"{LEAST_LISTED_WORDS}. Give a larger one with --context-tokens."
            )
        return f"{introduction}\n\n{write_list(length)}"

    context = fit_context(build, question, trial.context_tokens, trial.count_tokens)
    return LongQuestion(task, context, question, tuple(wanted), "all", ANSWER_TOKENS, None)


def _zipf_counts(length: int) -> list[int]:
    """How often each rank stands among about `length` words; the rarest, less than once each, not at all."""
    weights = [rank**-ZIPF_EXPONENT for rank in range(1, CODED_WORDS + 1)]
    total = sum(weights)
    return [int(length * weight / total) for weight in weights]


def _make_codes(random: Random) -> list[str]:
    """Different pronounceable words that mean nothing."""
    codes: dict[str, None] = {}
    while len(codes) < CODED_WORDS:
        codes["".join(random.choice("bdfgklmnprstvz") + random.choice("aeiou") for _ in range(3))] = None
    return list(codes)
