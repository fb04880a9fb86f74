"""The evaluations there are: what each takes on the command line, and how it is run.

Modules that need torch are imported when an evaluation runs: `--help` is quick, and `set_library_defaults` comes first.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from app.measure.evaluation import evaluation_flags as flags
from app.measure.evaluation.evaluation_flags import ENGINE_FLAGS, LENGTHS_ENGINE_FLAGS
from app.measure.measurement import Measurement, print_progress
from app.measure.number_flags import at_least
from app.settings import AppSettings
from quest_core.config import QuestConfig

BOOK_BUDGETS, ASKED_BUDGETS, SOURCE_BUDGETS = (256, 512, 1024), (128, 512), (256, 1024)
BOOK_TOKENS, QUICK_BOOK_TOKENS, SOURCES_TOKENS = 6144, 2048, 8192
SCORED_TOKENS, FEW_SCORED_TOKENS = 512, 64
TRIALS, QUICK_TRIALS = 10, 2
SOURCE_TRIALS, QUICK_SOURCE_TRIALS = 14, 4


def _add_book(parser: argparse.ArgumentParser, scored_tokens: str) -> None:
    flags.add_quick(parser, f"a window of {QUICK_BOOK_TOKENS} tokens, unless --context-tokens says another")
    flags.add_text(parser)
    flags.add_budgets(parser, BOOK_BUDGETS)
    flags.add_always_read(parser)
    parser.add_argument(
        "--scored-tokens",
        type=at_least(1),
        metavar="N",
        help=f"last tokens of the {BOOK_TOKENS}, or --context-tokens, fed one by one (default: {scored_tokens})",
    )


def _add_perplexity(parser: argparse.ArgumentParser) -> None:
    _add_book(parser, f"{SCORED_TOKENS}; --quick: {FEW_SCORED_TOKENS}")


def _add_recall(parser: argparse.ArgumentParser) -> None:
    _add_book(parser, str(FEW_SCORED_TOKENS))


def _measure_perplexity(settings: AppSettings, arguments: argparse.Namespace) -> dict[str, Any]:
    from app.measure.evaluation.perplexity import measure_perplexity

    usual = FEW_SCORED_TOKENS if arguments.quick else SCORED_TOKENS
    return _feed_book(measure_perplexity, settings, arguments, arguments.scored_tokens or usual)


def _measure_recall(settings: AppSettings, arguments: argparse.Namespace) -> dict[str, Any]:
    from app.measure.evaluation.recall import measure_recall

    return _feed_book(measure_recall, settings, arguments, arguments.scored_tokens or FEW_SCORED_TOKENS)


def _feed_book(
    measure: Callable[..., dict[str, Any]], settings: AppSettings, arguments: argparse.Namespace, scored_tokens: int
) -> dict[str, Any]:
    context_tokens = settings.context_tokens or (QUICK_BOOK_TOKENS if arguments.quick else BOOK_TOKENS)
    return measure(
        settings.with_context(context_tokens),
        settings_of_quest=_settings_of_quest(settings, arguments),
        scored_tokens=scored_tokens,
        text=arguments.text,
        on_progress=print_progress,
    )


def _add_questions(parser: argparse.ArgumentParser) -> None:
    flags.add_quick(parser, "short contexts and few trials")
    flags.add_budgets(parser, ASKED_BUDGETS)
    flags.add_always_read(parser)
    flags.add_lengths(parser)
    flags.add_trials(parser, TRIALS, QUICK_TRIALS)
    flags.add_seed(parser)


def _add_book_questions(parser: argparse.ArgumentParser) -> None:
    _add_questions(parser)
    flags.add_text(parser)


def _add_needles(parser: argparse.ArgumentParser) -> None:
    _add_book_questions(parser)
    flags.add_tasks(parser, "kinds of needles")


def _add_longbench(parser: argparse.ArgumentParser) -> None:
    _add_questions(parser)
    parser.add_argument(
        "--folder", type=Path, required=True, metavar="DIR", help="with LongBench's .jsonl files (required)"
    )
    flags.add_tasks(parser, "sets of that folder")


def _measure_passkey(settings: AppSettings, arguments: argparse.Namespace) -> dict[str, Any]:
    from app.measure.evaluation.question_sets import passkey_questions

    return _ask(settings, arguments, passkey_questions, text=arguments.text, seed=arguments.seed)


def _measure_needles(settings: AppSettings, arguments: argparse.Namespace) -> dict[str, Any]:
    from app.measure.evaluation.question_sets import needle_questions

    of_needles = {"text": arguments.text, "seed": arguments.seed, "tasks": arguments.tasks}
    return _ask(settings, arguments, needle_questions, **of_needles)


def _measure_qa(settings: AppSettings, arguments: argparse.Namespace) -> dict[str, Any]:
    from app.measure.evaluation.question_sets import planted_questions

    return _ask(settings, arguments, planted_questions, text=arguments.text, seed=arguments.seed)


def _measure_longbench(settings: AppSettings, arguments: argparse.Namespace) -> dict[str, Any]:
    from app.measure.evaluation.question_sets import longbench_questions

    return _ask(settings, arguments, longbench_questions, folder=arguments.folder, tasks=arguments.tasks)


def _ask(
    settings: AppSettings, arguments: argparse.Namespace, build_questions: Callable[..., list[Any]], **of_questions: Any
) -> dict[str, Any]:
    from app.measure.evaluation.answers import measure_answers

    lengths = arguments.lengths or (flags.QUICK_LENGTHS if arguments.quick else flags.LENGTHS)
    trials = arguments.trials or (QUICK_TRIALS if arguments.quick else TRIALS)
    return measure_answers(
        settings,
        evaluation=arguments.evaluation,
        build_questions=partial(build_questions, trials=trials, **of_questions),
        lengths=lengths,
        settings_of_quest=_settings_of_quest(settings, arguments),
        seed=arguments.seed,
        on_progress=print_progress,
    )


def _add_sources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="the text alone, without a model: seconds")
    flags.add_text(parser, "the sample books")
    flags.add_budgets(parser, SOURCE_BUDGETS)
    flags.add_trials(parser, SOURCE_TRIALS, QUICK_SOURCE_TRIALS, least=0)
    flags.add_seed(parser)


def _measure_sources(settings: AppSettings, arguments: argparse.Namespace) -> dict[str, Any]:
    from app.measure.evaluation.sources import measure_sources, texts_of

    trials = arguments.trials
    if trials is None:
        trials = QUICK_SOURCE_TRIALS if arguments.quick else SOURCE_TRIALS
    return measure_sources(
        settings.with_context(settings.context_tokens or SOURCES_TOKENS),
        texts=texts_of(arguments.text),
        budgets=() if arguments.quick else arguments.budgets,
        trials=trials,
        seed=arguments.seed,
        reads_text=not arguments.quick,
        on_progress=print_progress,
    )


def _add_documents(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="PDFs of your own, read beside pypdf (default: the corpus)"
    )


def _measure_documents(settings: AppSettings, arguments: argparse.Namespace) -> dict[str, Any]:
    from app.measure.evaluation.extraction.documents import measure_documents

    return measure_documents(arguments.folder, print_progress)


def _settings_of_quest(settings: AppSettings, arguments: argparse.Namespace) -> list[QuestConfig]:
    return [
        QuestConfig(
            token_budget=budget,
            dense_layers=settings.dense_layers,
            sink_pages=arguments.sink_pages,
            recent_pages=arguments.recent_pages,
        )
        for budget in arguments.budgets
    ]


EVALUATIONS = {
    "perplexity": Measurement(
        "a book's last tokens, fed one by one", ENGINE_FLAGS, _add_perplexity, _measure_perplexity
    ),
    "passkey": Measurement(
        "a number hidden in filler and in a book", LENGTHS_ENGINE_FLAGS, _add_book_questions, _measure_passkey
    ),
    "needles": Measurement(
        "several facts hidden in a book, variables to trace, words to count (RULER)",
        LENGTHS_ENGINE_FLAGS,
        _add_needles,
        _measure_needles,
    ),
    "qa": Measurement("invented facts planted in a book", LENGTHS_ENGINE_FLAGS, _add_book_questions, _measure_qa),
    "longbench": Measurement(
        "question answering sets of a LongBench folder", LENGTHS_ENGINE_FLAGS, _add_longbench, _measure_longbench
    ),
    "sources": Measurement(
        "the pages and passages beside answers", ENGINE_FLAGS, _add_sources, _measure_sources, draws=False
    ),
    "recall": Measurement(
        "the attention mass that the selected pages hold", ENGINE_FLAGS, _add_recall, _measure_recall
    ),
    "documents": Measurement(
        "how well documents are read, on a corpus of faults; with --folder, beside pypdf on PDFs of your own",
        (),
        _add_documents,
        _measure_documents,
        draws=False,
    ),
}
