"""The `bench` subcommand: which benchmark to run, and where its rows go."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from app.chat.reading.summary_level_notes import idle_levels_note
from app.errors import UserFacingError
from app.measure.benchmarks.shapes import SHAPES, ModelShape
from app.measure.result_tables import format_table, number_list, write_json
from app.settings import AppSettings

BENCHMARKS = {
    "decode": "one token end to end; of a loaded model, or with --shape of random weights",
    "kernels": "attention of one token in one layer, on a GPU",
    "products": "a weight matrix times one token's vector, in 16, 8 and 4 bits, on a GPU",
    "prefill": "reading a document",
    "trace": "what the record of the pages read costs",
    "cpu": "prefill, decoding, memory and agreement on the CPU, against Transformers and llama.cpp",
    "reopen": "the first word of an answer over a document that was read before, and one that was not",
    "page": "first paint, usable page, and frames a second while an answer streams, in a real browser",
}
LOADED_CONTEXTS = [512, 2048, 7680]
SHAPE_BUDGETS = [2048]
RIVALS = ("transformers", "transformers-compiled")
CPU_RIVALS = ("transformers-bf16", "transformers-fp32")


def add_bench_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `bench` takes beside the shared flags."""
    parser.add_argument(
        "benchmark",
        nargs="?",
        choices=list(BENCHMARKS),
        default="decode",
        help="; ".join(f"{name}: {what}" for name, what in BENCHMARKS.items()),
    )
    parser.add_argument(
        "--shape",
        type=shape_list,
        metavar="NAME,NAME",
        help=f"decode, prefill, trace, reopen: random weights of this shape instead of --model: {', '.join(SHAPES)}",
    )
    parser.add_argument(
        "--contexts",
        type=number_list,
        metavar="N,N",
        help="context lengths in tokens (default: 512,2048,7680; with --shape 8192,32768,131072, prefill 2048 too; "
        "kernels: 8192,32768,131072,524288; cpu: 512 to 32768, doubling from 2048 on; reopen --shape: "
        "32768,131072)",
    )
    parser.add_argument(
        "--budgets",
        type=number_list,
        metavar="N,N",
        help="token budgets of Quest (default: --token-budget; with --shape 2048; kernels: 512,1024,2048,4096)",
    )
    parser.add_argument("--steps", type=int, default=32, metavar="N", help="tokens decoded in each round (default: 32)")
    parser.add_argument(
        "--rounds", type=int, metavar="N", help="rounds (default: 3; prefill 2, reopen and page 5, kernels 7)"
    )
    parser.add_argument(
        "--text",
        type=Path,
        metavar="FILE",
        help="what to read (default: the sample book, repeated; reopen: once as it is and once 15000 tokens of it)",
    )
    parser.add_argument(
        "--weight-bits",
        type=number_list,
        default=[16],
        metavar="N,N",
        dest="weight_bits_list",
        help="decode, prefill, trace: of our weights, 16, 8 or 4; several with decode --shape (default: 16)",
    )
    parser.add_argument(
        "--rivals",
        type=rival_list,
        metavar="NAME,NAME",
        help=f"decode --shape, prefill: of {', '.join(RIVALS)}, or none; the second, only decode's, takes about a "
        f"minute a context to compile; cpu: of {', '.join(CPU_RIVALS)}, or none (default: all)",
    )
    parser.add_argument(
        "--rival-llamacpp", action="store_true", help="cpu: llama.cpp too, where llama-cpp-python is installed"
    )
    parser.add_argument(
        "--scored-tokens",
        type=int,
        default=512,
        metavar="N",
        help="cpu: tokens of the text fed one by one, dense and with Quest, to compare their perplexity; 0: none "
        "(default: 512)",
    )
    parser.add_argument(
        "--layout",
        choices=("paper", "settings"),
        default="paper",
        help="kernels: pages of 16 with bounds, as in the paper (default), or --selection, --page-size, "
        "--summary-bits, --summary-levels and --kv-bits",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write rows, machine, versions and commit")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="draw the rows")


def shape_list(text: str) -> list[ModelShape]:
    """Parse "llama-2-7b,qwen3-4b" for argparse."""
    try:
        return [SHAPES[name] for name in text.split(",")]
    except KeyError as error:
        raise argparse.ArgumentTypeError(f"{error.args[0]!r} is none of {', '.join(SHAPES)}") from None


def rival_list(text: str) -> tuple[str, ...]:
    """Parse "transformers" or "none" for argparse."""
    names = () if text == "none" else tuple(text.split(","))
    known = RIVALS + CPU_RIVALS
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}, none")
    return names


def run_bench(settings: AppSettings, arguments: argparse.Namespace) -> int:
    """Run one benchmark, print its table, write its JSON and plot; returns the exit code."""
    if arguments.plot and arguments.benchmark in ("products", "reopen", "page"):
        raise UserFacingError(f"bench {arguments.benchmark} has no curves to draw. Leave --plot out.")
    if arguments.plot:
        from app.measure.svg_files import require_matplotlib

        require_matplotlib()  # minutes of measurement should not end with its absence
    if min(arguments.steps, arguments.rounds or 1) < 1:
        raise UserFacingError("--steps and --rounds must be at least 1.")
    if arguments.scored_tokens < 0:
        raise UserFacingError(f"--scored-tokens must not be negative, and is {arguments.scored_tokens}.")
    _choose_rivals(arguments)
    if note := _idle_levels_note(settings, arguments):
        _print_progress(f"Note: {note}")
    result = _measure(settings, arguments)
    skipped = [
        " ".join(f"{name}={value}" for name, value in each.items() if name != "reason") + f": {each['reason']}"
        for each in result.get("skipped", [])
    ]
    if not result["rows"]:
        raise UserFacingError("Nothing could be measured. " + "; ".join(skipped))
    print(format_table(result["rows"]))
    if result.get("agreement"):
        print("\n" + format_table(result["agreement"]))
    for each in skipped:
        _print_progress(f"Note: {each}")
    if arguments.json:
        write_json(arguments.json, result)
    if arguments.plot:
        from app.measure.benchmarks.plots import draw_result

        _print_progress(f"Drawn: {draw_result(result, arguments.plot)}")
    return 0


def _choose_rivals(arguments: argparse.Namespace) -> None:
    """Fill in all rivals of the benchmark where none is named.

    Raises:
        UserFacingError: for a rival of another benchmark.
    """
    known = CPU_RIVALS if arguments.benchmark == "cpu" else RIVALS
    if arguments.rivals is None:
        arguments.rivals = known
    if others := [name for name in arguments.rivals if name not in known]:
        raise UserFacingError(
            f"{others[0]} is no rival in bench {arguments.benchmark}; {', '.join(known)} and none are."
        )
    if arguments.rival_llamacpp and arguments.benchmark != "cpu":
        raise UserFacingError("--rival-llamacpp is for bench cpu only.")


def _idle_levels_note(settings: AppSettings, arguments: argparse.Namespace) -> str:
    """Of the benchmarks that decode with the settings' pages."""
    if settings.summary_levels == 1 or arguments.benchmark not in ("decode", "trace", "cpu"):
        return ""
    from app.measure.benchmarks.decode_shapes import CONTEXTS
    from quest_core.engine import choose_device

    device_type = "cpu" if arguments.benchmark == "cpu" else choose_device(settings.device).type
    budgets = arguments.budgets or (SHAPE_BUDGETS if arguments.shape else [settings.token_budget])
    contexts = arguments.contexts or (CONTEXTS if arguments.shape else LOADED_CONTEXTS)
    return idle_levels_note(settings, device_type, budgets, max(contexts))


def _measure(settings: AppSettings, arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.benchmark == "kernels":
        return _measure_kernels(settings, arguments)
    if arguments.benchmark == "products":
        from app.measure.benchmarks.products import measure_products

        return measure_products(rounds=arguments.rounds or 7, on_progress=_print_progress)
    if arguments.benchmark == "page":
        from app.measure.benchmarks.page import measure_page

        return measure_page(settings, rounds=arguments.rounds or 5, on_progress=_print_progress)
    if arguments.benchmark == "decode":
        return _measure_decode(settings, arguments)
    if arguments.benchmark == "cpu":
        return _measure_cpu(settings, arguments)
    if arguments.benchmark == "reopen":
        return _measure_reopen(settings, arguments)
    return _measure_subjects(settings, arguments)


def _measure_kernels(settings: AppSettings, arguments: argparse.Namespace) -> dict[str, Any]:
    from app.measure.benchmarks.kernel_cases import PAPER_LAYOUT, PageLayout
    from app.measure.benchmarks.kernels import BUDGETS, CONTEXTS, measure_kernels

    of_settings = PageLayout(
        settings.selection, settings.page_size, settings.summary_bits, settings.kv_bits, settings.summary_levels
    )
    return measure_kernels(
        contexts=arguments.contexts or CONTEXTS,
        budgets=arguments.budgets or BUDGETS,
        rounds=arguments.rounds or 7,
        layout=PAPER_LAYOUT if arguments.layout == "paper" else of_settings,
        on_progress=_print_progress,
    )


def _measure_decode(settings: AppSettings, arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.shape:
        from app.measure.benchmarks.decode_shapes import CONTEXTS, measure_decode_shapes

        return measure_decode_shapes(
            settings,
            shapes=arguments.shape,
            contexts=arguments.contexts or CONTEXTS,
            budgets=arguments.budgets or SHAPE_BUDGETS,
            weight_bits=arguments.weight_bits_list,
            steps=arguments.steps,
            rounds=arguments.rounds or 3,
            rivals=arguments.rivals,
            on_progress=_print_progress,
        )
    from app.measure.benchmarks.decode import measure_decode

    return measure_decode(
        _with_weight_bits(settings, arguments),
        contexts=arguments.contexts or LOADED_CONTEXTS,
        budgets=arguments.budgets or [settings.token_budget],
        steps=arguments.steps,
        rounds=arguments.rounds or 3,
        text=arguments.text,
        on_progress=_print_progress,
    )


def _measure_cpu(settings: AppSettings, arguments: argparse.Namespace) -> dict[str, Any]:
    from app.measure.benchmarks.cpu import CONTEXTS, measure_cpu

    if arguments.shape:
        raise UserFacingError("bench cpu measures a loaded model; leave --shape out.")
    return measure_cpu(
        _with_weight_bits(settings, arguments),
        contexts=arguments.contexts or CONTEXTS,
        budgets=arguments.budgets or [settings.token_budget],
        steps=arguments.steps,
        rounds=arguments.rounds or 3,
        rivals=arguments.rivals,
        with_llamacpp=arguments.rival_llamacpp,
        scored_tokens=arguments.scored_tokens,
        text=arguments.text,
        on_progress=_print_progress,
    )


def _measure_reopen(settings: AppSettings, arguments: argparse.Namespace) -> dict[str, Any]:
    rounds = arguments.rounds or 5
    if arguments.shape:
        from app.measure.benchmarks.reopen_shapes import CONTEXTS, measure_reopen_shapes

        return measure_reopen_shapes(
            settings,
            shapes=arguments.shape,
            contexts=arguments.contexts or CONTEXTS,
            weight_bits=_one_weight_bits(arguments),
            rounds=rounds,
            on_progress=_print_progress,
        )
    from app.measure.benchmarks.reopen import measure_reopen

    if arguments.contexts:
        raise UserFacingError("bench reopen reads the sample book and --text as they are; leave --contexts out.")
    text = [] if arguments.text is None else [arguments.text]
    return measure_reopen(
        _with_weight_bits(settings, arguments), rounds=rounds, documents=text, on_progress=_print_progress
    )


def _measure_subjects(settings: AppSettings, arguments: argparse.Namespace) -> dict[str, Any]:
    """Prefill and trace take a loaded model as well as shapes."""
    from app.measure.benchmarks.decode_shapes import CONTEXTS as DECODE_CONTEXTS
    from app.measure.benchmarks.prefill import CONTEXTS as PREFILL_CONTEXTS
    from app.measure.benchmarks.prefill import measure_prefill
    from app.measure.benchmarks.subjects import LoadedSubject, RandomSubject
    from app.measure.benchmarks.trace import measure_trace

    if arguments.shape:
        bits = _one_weight_bits(arguments)
        subjects = [RandomSubject(shape, settings, bits) for shape in arguments.shape]
    else:
        subjects = [LoadedSubject(_with_weight_bits(settings, arguments), _print_progress)]
    if arguments.benchmark == "prefill":
        return measure_prefill(
            subjects,
            contexts=arguments.contexts or (PREFILL_CONTEXTS if arguments.shape else LOADED_CONTEXTS),
            rounds=arguments.rounds or 2,
            with_transformers="transformers" in arguments.rivals,
            on_progress=_print_progress,
        )
    if len(subjects) > 1:
        raise UserFacingError("bench trace takes one --shape at a time.")
    return measure_trace(
        subjects[0],
        contexts=arguments.contexts or (DECODE_CONTEXTS if arguments.shape else LOADED_CONTEXTS),
        budgets=arguments.budgets or (SHAPE_BUDGETS if arguments.shape else [settings.token_budget]),
        steps=arguments.steps,
        rounds=arguments.rounds or 3,
        on_progress=_print_progress,
    )


def _one_weight_bits(arguments: argparse.Namespace) -> int:
    if len(arguments.weight_bits_list) > 1:
        raise UserFacingError("Several --weight-bits are only for bench decode --shape.")
    return arguments.weight_bits_list[0]


def _with_weight_bits(settings: AppSettings, arguments: argparse.Namespace) -> AppSettings:
    """Of a loaded model, which the settings describe."""
    bits = _one_weight_bits(arguments)
    if "weight_bits" in {field.name for field in fields(AppSettings)}:
        return replace(settings, weight_bits=bits)
    if bits != 16:
        raise UserFacingError(f"This version has no {bits}-bit weights; leave --weight-bits at 16.")
    return settings


def _print_progress(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
