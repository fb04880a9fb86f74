"""The `eval` subcommand: which evaluation to run, and where its rows go."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from app.chat.reading.summary_level_notes import idle_levels_note
from app.errors import UserFacingError
from app.measure.number_flags import number_list
from app.measure.result_tables import format_table, write_json
from app.settings import AppSettings
from quest_core.config import QuestConfig

EVALUATIONS = {
    "perplexity": "a book's last tokens, fed one by one",
    "passkey": "a number hidden in filler and in a book",
    "needles": "several facts hidden in a book, variables to trace, words to count (RULER)",
    "qa": "invented facts planted in a book",
    "longbench": "question answering sets of a LongBench folder",
    "sources": "the pages and passages beside answers",
    "recall": "the share of attention that the selected pages hold",
    "documents": "how well documents are read, on a corpus of faults; with --folder, beside pypdf on PDFs of your own",
}
# What the table leaves out, the JSON has.
TABLE_LEAVES_OUT = {"by_layer", "exact", "dense_exact", "page_size"}


def add_eval_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `eval` takes beside the shared flags."""
    parser.add_argument(
        "evaluation",
        nargs="?",
        choices=list(EVALUATIONS),
        default="perplexity",
        help="; ".join(f"{name}: {what}" for name, what in EVALUATIONS.items()),
    )
    parser.add_argument("--quick", action="store_true", help="short contexts and few trials: minutes on a CPU")
    parser.add_argument("--text", type=Path, metavar="FILE", help="what to read (default: the sample book)")
    parser.add_argument(
        "--budgets",
        type=number_list,
        metavar="N,N",
        help="token budgets (default: 256,512,1024; passkey, needles, qa and longbench: 128,512; sources: 256,1024)",
    )
    parser.add_argument("--sink-pages", type=int, default=1, metavar="N", help="first pages always read (default: 1)")
    parser.add_argument(
        "--recent-pages", type=int, default=1, metavar="N", help="last full pages always read (default: 1; paper: 0)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write rows, machine, versions and commit")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="draw the rows")
    fed = parser.add_argument_group("perplexity and recall, over --context-tokens tokens (default: 6144)")
    fed.add_argument(
        "--scored-tokens", type=int, metavar="N", help="last tokens, fed one by one (default: 512; recall: 64)"
    )
    asked = parser.add_argument_group("passkey, needles, qa and longbench")
    asked.add_argument(
        "--lengths", type=number_list, metavar="N,N", help="tokens of prompt and answer (default: 1024,4096)"
    )
    asked.add_argument("--trials", type=int, metavar="N", help="questions of each task (default: 10; --quick: 2)")
    asked.add_argument("--seed", type=int, default=0, help="of what is hidden and where (default: 0)")
    asked.add_argument("--tasks", default="", metavar="NAME,NAME", help="needles or LongBench sets (default: all)")
    asked.add_argument("--folder", type=Path, metavar="DIR", help="LongBench's .jsonl files; documents: PDFs")


def run_eval(settings: AppSettings, arguments: argparse.Namespace) -> int:
    """Run one evaluation, print its table, write its JSON and plot; returns the exit code."""
    if arguments.plot:
        from app.measure.svg_files import require_matplotlib

        require_matplotlib()  # an hour's measurement should not end with its absence
    if (arguments.trials or 1) < 1:
        raise UserFacingError(f"--trials must be at least 1, not {arguments.trials}.")
    if note := _idle_levels_note(settings, arguments):
        _print_progress(f"Note: {note}")
    result = _measurement(settings, arguments)(on_progress=_print_progress)
    columns = [name for name in result["rows"][0] if name not in TABLE_LEAVES_OUT]
    print(format_table([{name: row[name] for name in columns} for row in result["rows"]]))
    if arguments.json:
        write_json(arguments.json, result)
    if arguments.plot:
        from app.measure.evaluation.plots import draw_result

        print(f"Drawn: {draw_result(result, arguments.plot)}", file=sys.stderr)
    return 0


def _measurement(settings: AppSettings, arguments: argparse.Namespace) -> Callable[..., dict[str, Any]]:
    """The chosen evaluation with its arguments, waiting for `on_progress`."""
    if arguments.evaluation == "documents":
        from app.measure.evaluation.documents import measure_documents

        return partial(measure_documents, arguments.folder)
    if arguments.evaluation == "sources":
        return _find_sources(settings, arguments)
    return _feed_book(settings, arguments) if _feeds_book(arguments) else _ask_questions(settings, arguments)


def _find_sources(settings: AppSettings, arguments: argparse.Namespace) -> Callable[..., dict[str, Any]]:
    from app.measure.evaluation.sources import measure_sources, texts_of

    return partial(
        measure_sources,
        settings.with_context(settings.context_tokens or 8192),
        texts=texts_of(arguments.text),
        budgets=[] if arguments.quick else arguments.budgets or [256, 1024],
        trials=(4 if arguments.quick else 14) if arguments.trials is None else arguments.trials,
        seed=arguments.seed,
        reads_text=not arguments.quick,
    )


def _feeds_book(arguments: argparse.Namespace) -> bool:
    return arguments.evaluation in ("perplexity", "recall")


def _budgets(arguments: argparse.Namespace) -> list[int]:
    return arguments.budgets or ([256, 512, 1024] if _feeds_book(arguments) else [128, 512])


def _fed_tokens(settings: AppSettings, arguments: argparse.Namespace) -> int:
    return settings.context_tokens or (2048 if arguments.quick else 6144)


def _asked_lengths(arguments: argparse.Namespace) -> list[int]:
    return arguments.lengths or ([1024] if arguments.quick else [1024, 4096])


def _idle_levels_note(settings: AppSettings, arguments: argparse.Namespace) -> str:
    if settings.summary_levels == 1:
        return ""
    from quest_core.engine import choose_device

    longest = _fed_tokens(settings, arguments) if _feeds_book(arguments) else max(_asked_lengths(arguments))
    return idle_levels_note(settings, choose_device(settings.device).type, _budgets(arguments), longest)


def _feed_book(settings: AppSettings, arguments: argparse.Namespace) -> Callable[..., dict[str, Any]]:
    recall = arguments.evaluation == "recall"
    if recall:
        from app.measure.evaluation.recall import measure_recall as measure
    else:
        from app.measure.evaluation.perplexity import measure_perplexity as measure
    scored_tokens = arguments.scored_tokens
    if scored_tokens is None:
        scored_tokens = 64 if recall or arguments.quick else 512
    return partial(
        measure,
        settings.with_context(_fed_tokens(settings, arguments)),
        settings_of_quest=_settings_of_quest(settings, arguments),
        scored_tokens=scored_tokens,
        text=arguments.text,
    )


def _ask_questions(settings: AppSettings, arguments: argparse.Namespace) -> Callable[..., dict[str, Any]]:
    from app.measure.evaluation import question_sets
    from app.measure.evaluation.answers import measure_answers

    trials = arguments.trials or (2 if arguments.quick else 10)
    tasks = [name for name in arguments.tasks.split(",") if name]
    of_book = {"text": arguments.text, "trials": trials, "seed": arguments.seed}
    if arguments.evaluation == "longbench" and arguments.folder is None:
        raise UserFacingError("eval longbench needs --folder DIR, a folder with LongBench's .jsonl files.")
    build = {
        "passkey": partial(question_sets.passkey_questions, **of_book),
        "needles": partial(question_sets.needle_questions, **of_book, tasks=tasks),
        "qa": partial(question_sets.planted_questions, **of_book),
        "longbench": partial(question_sets.longbench_questions, folder=arguments.folder, trials=trials, tasks=tasks),
    }[arguments.evaluation]
    return partial(
        measure_answers,
        settings,
        evaluation=arguments.evaluation,
        build_questions=build,
        lengths=_asked_lengths(arguments),
        settings_of_quest=_settings_of_quest(settings, arguments),
        seed=arguments.seed,
    )


def _settings_of_quest(settings: AppSettings, arguments: argparse.Namespace) -> list[QuestConfig]:
    return [
        QuestConfig(
            token_budget=budget,
            dense_layers=settings.dense_layers,
            sink_pages=arguments.sink_pages,
            recent_pages=arguments.recent_pages,
        )
        for budget in _budgets(arguments)
    ]


def _print_progress(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
