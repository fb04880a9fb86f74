"""Needles in long text, of the kinds of RULER (arXiv 2404.06654, section 3), in words of our own.

Each task says how many needles there are, which of them are wanted and how they are asked for. Nothing here knows what
answers the questions, or how answers are scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from app.errors import UserFacingError
from app.measure.evaluation.extraction.counted_words import ask_common_words, ask_frequent_words
from app.measure.evaluation.extraction.word_list import choose_keys
from app.measure.evaluation.question import CountTokens, Haystack, LongQuestion, Trial, spread_trials

INTRODUCTION = "Some code numbers are hidden in the text below. Keep them in mind: you will be asked about them."
VARIABLE_INTRODUCTION = "Some variables are set in the text below. Keep track of the value that each of them holds."
DISTRACTORS = 3
VALUES_PER_KEY = 4
QUERIED_KEYS = 2
KEYS_AMONG_QUERIED = 8
CHAINS = 2
VARIABLES_PER_CHAIN = 5
# A five-digit number, each digit of which may be a token, or a variable, with a comma and a few words around it.
TOKENS_PER_ANSWER = 16


def ask_single(task: str, trial: Trial) -> LongQuestion:
    """One key and its value."""
    return _ask_one_key(task, trial, distractors=0)


def ask_multi_key(task: str, trial: Trial) -> LongQuestion:
    """One key and its value among other keys with values of their own."""
    return _ask_one_key(task, trial, distractors=DISTRACTORS)


def ask_multi_value(task: str, trial: Trial) -> LongQuestion:
    """One key with several values, all of them wanted."""
    (key,) = choose_keys(trial.random, 1)
    values = _choose_values(trial.random, VALUES_PER_KEY)
    needles = [(trial.random.random(), _write_needle(key, value)) for value in values]
    question = (
        f"What are all the {VALUES_PER_KEY} code numbers of {key} in the text? "
        f"Answer: The {VALUES_PER_KEY} code numbers of {key} are"
    )
    return _ask(task, trial, INTRODUCTION, needles, question, values)


def ask_multi_query(task: str, trial: Trial) -> LongQuestion:
    """Many keys with a value each, those of two of them wanted."""
    keys = choose_keys(trial.random, KEYS_AMONG_QUERIED)
    values = _choose_values(trial.random, KEYS_AMONG_QUERIED)
    needles = [(trial.random.random(), _write_needle(key, value)) for key, value in zip(keys, values, strict=True)]
    wanted = " and ".join(keys[:QUERIED_KEYS])
    question = f"What are the code numbers of {wanted} in the text? Answer: The code numbers of {wanted} are"
    return _ask(task, trial, INTRODUCTION, needles, question, values[:QUERIED_KEYS])


def ask_variable_tracking(task: str, trial: Trial) -> LongQuestion:
    """Chains of variables, each set to the one before it; all those of the first chain are wanted."""
    names: list[str] = []
    while len(names) < CHAINS * VARIABLES_PER_CHAIN:
        # Consonants only, so that no name is a word.
        name = "".join(trial.random.sample("BCDFGHJKLMNPQRSTVWXZ", 3))
        if name not in names:
            names.append(name)
    chains = [names[chain::CHAINS] for chain in range(CHAINS)]
    values = _choose_values(trial.random, CHAINS)
    needles = []
    for chain, value in zip(chains, values, strict=True):
        depths = sorted(trial.random.random() for _ in chain)
        sources = [value, *chain[:-1]]
        needles += [
            (depth, f"Variable {name} = {source}.") for depth, name, source in zip(depths, chain, sources, strict=True)
        ]
    question = (
        f"Which {VARIABLES_PER_CHAIN} variables hold the value {values[0]}, directly or through another variable? "
        f"Answer: The {VARIABLES_PER_CHAIN} variables that hold the value {values[0]} are"
    )
    return _ask(task, trial, VARIABLE_INTRODUCTION, needles, question, chains[0])


NEEDLE_TASKS = {
    "single": ask_single,
    "multi-key": ask_multi_key,
    "multi-value": ask_multi_value,
    "multi-query": ask_multi_query,
    "variable-tracking": ask_variable_tracking,
    "common-words": ask_common_words,
    "frequent-words": ask_frequent_words,
}


def build_needle_questions(
    task_names: Sequence[str],
    haystack: Haystack,
    context_tokens: int,
    trials: int,
    seed: int,
    count_tokens: CountTokens,
) -> list[LongQuestion]:
    """Questions of each of the named tasks, `trials` of each.

    Args:
        task_names: keys of `NEEDLE_TASKS`.
        haystack: what to hide the needles in; the two tasks of counted words do without.
        context_tokens: the most that a context and its question count together; at least 97 % of it is filled.
        trials: how many questions of each task.
        seed: of keys, values and places; the same seed builds the same questions.
        count_tokens: counts a string's tokens, special ones left out.

    Raises:
        UserFacingError: if a task is unknown, the haystack too short or the window too small.
    """
    unknown = [name for name in task_names if name not in NEEDLE_TASKS]
    if unknown:
        raise UserFacingError(f"There is no needle task {unknown[0]!r}. Choose from {', '.join(NEEDLE_TASKS)}.")
    return [
        NEEDLE_TASKS[name](f"needles/{name}", trial)
        for name in task_names
        for trial in spread_trials(name, haystack, context_tokens, trials, seed, count_tokens)
    ]


def _ask_one_key(task: str, trial: Trial, distractors: int) -> LongQuestion:
    key, *other_keys = choose_keys(trial.random, 1 + distractors)
    value, *other_values = _choose_values(trial.random, 1 + distractors)
    needles = [(trial.depth, _write_needle(key, value))]
    for other_key, other_value in zip(other_keys, other_values, strict=True):
        needles.append((trial.random.random(), _write_needle(other_key, other_value)))
    question = f"What is the code number of {key} in the text? Answer: The code number of {key} is"
    return _ask(task, trial, INTRODUCTION, needles, question, [value], trial.depth)


def _ask(
    task: str,
    trial: Trial,
    introduction: str,
    needles: list[tuple[float, str]],
    question: str,
    answers: list[str],
    depth: float | None = None,
) -> LongQuestion:
    context = trial.hide(introduction, needles, question)
    return LongQuestion(task, context, question, tuple(answers), "all", TOKENS_PER_ANSWER * len(answers), depth)


def _choose_values(random: Random, count: int) -> list[str]:
    return [str(value) for value in random.sample(range(10_000, 100_000), count)]


def _write_needle(key: str, value: str) -> str:
    return f"The code number of {key} is {value}."
