"""The passkey task: a five-digit number hidden in long text, to be repeated at its end.

After Landmark Attention (arXiv 2305.16300, section 4.2), as Quest measures it (arXiv 2406.10774, section 4.2). Nothing
here knows what answers the questions, or how answers are scored.
"""

from __future__ import annotations

from app.measure.evaluation.question import CountTokens, Haystack, LongQuestion, Trial, spread_trials

INTRODUCTION = (
    "There is important information hidden in the text below, among much that does not matter. "
    "Find it and keep it in mind: you will be asked for it at the end."
)
# Without the words "Question" and "Answer" a small model tends to go on with the text.
QUESTION = "Question: What is the pass key in the text above?\nAnswer: The pass key is"
# Five digits, each of which may be a token, and the words that a model may put before them.
ANSWER_TOKENS = 16


def build_passkey_questions(
    haystack: Haystack, context_tokens: int, trials: int, seed: int, count_tokens: CountTokens
) -> list[LongQuestion]:
    """Questions for a random pass key each, hidden at depths evenly spread from 0.05 to 0.95.

    Args:
        haystack: what to hide the keys in.
        context_tokens: the most that a context and its question count together; at least 97 % of it is filled.
        trials: how many questions.
        seed: of keys and places; the same seed builds the same questions.
        count_tokens: counts a string's tokens, special ones left out.

    Raises:
        UserFacingError: if the haystack is too short or the window too small.
    """
    task = f"passkey/{haystack.name}"
    return [
        _build_question(task, trial)
        for trial in spread_trials(task, haystack, context_tokens, trials, seed, count_tokens)
    ]


def _build_question(task: str, trial: Trial) -> LongQuestion:
    key = str(trial.random.randrange(10_000, 100_000))
    needle = f"The pass key is {key}. Remember it. {key} is the pass key."
    context = trial.hide(INTRODUCTION, [(trial.depth, needle)], QUESTION)
    return LongQuestion(task, context, QUESTION, (key,), "any", ANSWER_TOKENS, trial.depth)
