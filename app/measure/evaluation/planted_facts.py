"""Questions with known answers about facts planted in a real text: sentences about persons and places that are not.

The facts are invented, so that no model knows them from elsewhere, and plain, so that they do not stick out as a pass
key does. Nothing here knows what answers the questions, or how answers are scored.
"""

from __future__ import annotations

from app.measure.evaluation.question import CountTokens, Haystack, LongQuestion, Trial, spread_trials

INTRODUCTION = "Read the text below with care. A question about one detail of it follows at the end."
ANSWER_TOKENS = 24

FIRST_NAMES = ("Ida", "Tobin", "Maren", "Osric", "Petra", "Lewin", "Salka", "Edric", "Nora", "Jorun", "Alban", "Wilma")
SURNAMES = (
    "Marrow",
    "Quill",
    "Hartsen",
    "Veldt",
    "Pellow",
    "Strand",
    "Oakes",
    "Lindqvar",
    "Thorpe",
    "Bramble",
    "Fenn",
)
PLACES = (
    "Port Orsen",
    "Wexmoor",
    "Saltholm",
    "Little Gradby",
    "Nether Vale",
    "Kestrel Bay",
    "Dunmarrow",
    "East Tolling",
)
THINGS = (
    "copper kettle",
    "glass harp",
    "green umbrella",
    "brass telescope",
    "wooden horse",
    "silver thimble",
    "red kite",
)
ANIMALS = ("heron", "badger", "tortoise", "goat", "magpie", "beaver", "donkey", "hedgehog")
MONTHS = ("January", "February", "March", "April", "June", "July", "August", "September", "October", "November")

# The fact, the question, the beginning of its answer, and the answer.
TEMPLATES = (
    (
        "The lighthouse keeper at {place} is called {person}.",
        "What is the name of the lighthouse keeper at {place}?",
        "The lighthouse keeper at {place} is called",
        "{person}",
    ),
    (
        "The mayor of {place} in that year was {person}.",
        "Who was the mayor of {place} in that year?",
        "The mayor of {place} was",
        "{person}",
    ),
    (
        "It was {person} who built the stone bridge at {place}.",
        "Who built the stone bridge at {place}?",
        "The stone bridge at {place} was built by",
        "{person}",
    ),
    (
        "The bakery in {place} belongs to {person}.",
        "Who owns the bakery in {place}?",
        "The bakery in {place} belongs to",
        "{person}",
    ),
    (
        "The clockmaker {person} was born in {place}.",
        "Where was the clockmaker {person} born?",
        "The clockmaker {person} was born in",
        "{place}",
    ),
    (
        "Every summer the painter {person} stays in {place}.",
        "Where does the painter {person} stay every summer?",
        "Every summer the painter {person} stays in",
        "{place}",
    ),
    (
        "The map of the old mine is kept by {person} in {place}.",
        "In which place is the map of the old mine kept by {person}?",
        "The map of the old mine is kept by {person} in",
        "{place}",
    ),
    (
        "The ferryman {person} paid for his boat with a {thing}.",
        "With what did the ferryman {person} pay for his boat?",
        "The ferryman {person} paid for his boat with a",
        "{thing}",
    ),
    (
        "The most precious thing in the museum of {place} is a {thing}.",
        "What is the most precious thing in the museum of {place}?",
        "The most precious thing in the museum of {place} is a",
        "{thing}",
    ),
    (
        "The schoolteacher {person} has a tame {animal} named Pepper.",
        "Which kind of animal is Pepper, who belongs to the schoolteacher {person}?",
        "The schoolteacher {person} has a tame",
        "{animal}",
    ),
    (
        "The coat of arms of {place} shows a {animal}.",
        "Which animal does the coat of arms of {place} show?",
        "The coat of arms of {place} shows a",
        "{animal}",
    ),
    (
        "The great fair of {place} is held in {month}.",
        "In which month is the great fair of {place} held?",
        "The great fair of {place} is held in",
        "{month}",
    ),
    (
        "The night train from {place} has {number} carriages.",
        "How many carriages has the night train from {place}?",
        "The number of carriages of the night train from {place} is",
        "{number}",
    ),
    (
        "The tower of {place} is {number} steps high.",
        "How many steps high is the tower of {place}?",
        "The number of steps of the tower of {place} is",
        "{number}",
    ),
)


def build_planted_questions(
    haystack: Haystack, context_tokens: int, trials: int, seed: int, count_tokens: CountTokens
) -> list[LongQuestion]:
    """Questions for one planted fact each, at depths evenly spread from 0.05 to 0.95.

    Args:
        haystack: the real text to plant the facts in.
        context_tokens: the most that a context and its question count together; at least 97 % of it is filled.
        trials: how many questions; every template is used before one is used again.
        seed: of facts, names and places; the same seed builds the same questions.
        count_tokens: counts a string's tokens, special ones left out.

    Raises:
        UserFacingError: if the haystack is too short or the window too small.
    """
    task = f"qa/{haystack.name}"
    all_trials = spread_trials(task, haystack, context_tokens, trials, seed, count_tokens)
    return [_build_question(task, trial, (seed + index) % len(TEMPLATES)) for index, trial in enumerate(all_trials)]


def _build_question(task: str, trial: Trial, template: int) -> LongQuestion:
    choose = trial.random.choice
    chosen = {
        "person": f"{choose(FIRST_NAMES)} {choose(SURNAMES)}",
        "place": choose(PLACES),
        "thing": choose(THINGS),
        "animal": choose(ANIMALS),
        "month": choose(MONTHS),
        "number": trial.random.randrange(13, 100),
    }
    fact, question, beginning, answer = (part.format(**chosen) for part in TEMPLATES[template])
    full_question = f"{question} Answer: {beginning}"
    context = trial.hide(INTRODUCTION, [(trial.depth, fact)], full_question)
    return LongQuestion(task, context, full_question, (answer,), "any", ANSWER_TOKENS, trial.depth)
