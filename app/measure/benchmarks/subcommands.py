"""The benchmarks there are: what each takes on the command line, and how it is run.

Modules that need torch are imported when a benchmark runs: `--help` is quick, and `set_library_defaults` comes first.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from app.errors import UserFacingError
from app.flags import (
    DATA_DIR,
    DENSE_LAYERS,
    DEVICE,
    DTYPE,
    LAYOUT_FLAGS,
    MODEL,
    MODEL_FLAGS,
    OFFLINE,
    PAGE_SIZE,
    SELECTION,
    SUMMARY_BITS,
    TOKEN_BUDGET,
    WEIGHT_BITS,
)
from app.measure.benchmarks import benchmark_flags as flags
from app.measure.measurement import Measurement, print_progress
from app.measure.number_flags import at_least, join_numbers, number_list
from app.settings import AppSettings

LOADED_CONTEXTS = (512, 2048, 7680)
SHAPE_CONTEXTS = (8192, 32768, 131072)
PREFILL_SHAPE_CONTEXTS = (2048, *SHAPE_CONTEXTS)
REOPEN_SHAPE_CONTEXTS = (32768, 131072)
KERNEL_CONTEXTS, KERNEL_BUDGETS = (8192, 32768, 131072, 524288), (512, 1024, 2048, 4096)
API_CONTEXTS = (512, 2048)
CPU_CONTEXTS = (512, 2048, 4096, 8192, 16384, 32768)
SHAPE_BUDGETS = (2048,)
DECODE_RIVALS = ("transformers", "transformers-compiled")
CPU_RIVALS = ("transformers-bf16", "transformers-fp32")


def _add_decode(parser: argparse.ArgumentParser) -> None:
    flags.add_shapes(parser)
    flags.add_contexts(parser, LOADED_CONTEXTS, SHAPE_CONTEXTS)
    flags.add_budgets(parser, f"--token-budget; with --shape {join_numbers(SHAPE_BUDGETS)}")
    flags.add_steps(parser)
    flags.add_rounds(parser, 3)
    flags.add_text(parser)
    parser.add_argument(
        "--weight-bits",
        type=number_list,
        default=[16],
        metavar="N,N",
        dest="weight_bits_list",
        help="of our weights: 16, 8 or 4; with --shape several (default: 16)",
    )
    note = "; with --shape only, and the second takes about a minute a context to compile"
    flags.add_rivals(parser, DECODE_RIVALS, note)


def _measure_decode(settings: AppSettings, arguments: argparse.Namespace) -> dict[str, Any]:
    contexts, budgets = _contexts(arguments, SHAPE_CONTEXTS), _budgets(settings, arguments)
    common = {"contexts": contexts, "budgets": budgets, "steps": arguments.steps, "rounds": arguments.rounds}
    bits = arguments.weight_bits_list
    if arguments.shape:
        from app.measure.benchmarks.decode_shapes import measure_decode_shapes

        return measure_decode_shapes(
            settings,
            **common,
            shapes=arguments.shape,
            weight_bits=bits,
            rivals=arguments.rivals,
            on_progress=print_progress,
        )
    if len(bits) > 1:
        raise UserFacingError("Several --weight-bits are only for bench decode --shape.")
    from app.measure.benchmarks.decode import measure_decode

    settings = replace(settings, weight_bits=bits[0])
    return measure_decode(settings, **common, text=arguments.text, on_progress=print_progress)


def _add_kernels(parser: argparse.ArgumentParser) -> None:
    flags.add_contexts(parser, KERNEL_CONTEXTS)
    flags.add_budgets(parser, join_numbers(KERNEL_BUDGETS))
    flags.add_rounds(parser, 7)
    parser.add_argument(
        "--layout",
        choices=("paper", "settings"),
        default="paper",
        help="pages of 16 with bounds, as in the paper (default), or what the flags under `attention` say",
    )


def _measure_kernels(settings: AppSettings, arguments: argparse.Namespace) -> dict[str, Any]:
    from app.measure.benchmarks.kernels import measure_kernels
    from app.measure.benchmarks.subjects.kernel_cases import PAPER_LAYOUT, PageLayout

    of_settings = PageLayout(settings.selection, settings.page_size, settings.summary_bits, settings.kv_bits)
    return measure_kernels(
        contexts=arguments.contexts or KERNEL_CONTEXTS,
        budgets=arguments.budgets or KERNEL_BUDGETS,
        rounds=arguments.rounds,
        layout=PAPER_LAYOUT if arguments.layout == "paper" else of_settings,
        on_progress=print_progress,
    )


def _add_products(parser: argparse.ArgumentParser) -> None:
    flags.add_rounds(parser, 7)


def _measure_products(settings: AppSettings, arguments: argparse.Namespace) -> dict[str, Any]:
    from app.measure.benchmarks.products import measure_products

    return measure_products(rounds=arguments.rounds, on_progress=print_progress)


def _add_prefill(parser: argparse.ArgumentParser) -> None:
    flags.add_shapes(parser)
    flags.add_contexts(parser, LOADED_CONTEXTS, PREFILL_SHAPE_CONTEXTS)
    flags.add_rounds(parser, 2)
    flags.add_rivals(parser, DECODE_RIVALS[:1])


def _measure_prefill(settings: AppSettings, arguments: argparse.Namespace) -> dict[str, Any]:
    from app.measure.benchmarks.prefill import measure_prefill

    return measure_prefill(
        _subjects(settings, arguments),
        contexts=_contexts(arguments, PREFILL_SHAPE_CONTEXTS),
        rounds=arguments.rounds,
        with_transformers="transformers" in arguments.rivals,
        on_progress=print_progress,
    )


def _add_trace(parser: argparse.ArgumentParser) -> None:
    flags.add_shape(parser)
    flags.add_contexts(parser, LOADED_CONTEXTS, SHAPE_CONTEXTS)
    flags.add_budgets(parser, f"--token-budget; with --shape {join_numbers(SHAPE_BUDGETS)}")
    flags.add_steps(parser)
    flags.add_rounds(parser, 3)


def _measure_trace(settings: AppSettings, arguments: argparse.Namespace) -> dict[str, Any]:
    from app.measure.benchmarks.trace import measure_trace

    contexts, budgets = _contexts(arguments, SHAPE_CONTEXTS), _budgets(settings, arguments)
    (subject,) = _subjects(settings, arguments)
    return measure_trace(
        subject,
        contexts=contexts,
        budgets=budgets,
        steps=arguments.steps,
        rounds=arguments.rounds,
        on_progress=print_progress,
    )


def _add_cpu(parser: argparse.ArgumentParser) -> None:
    flags.add_contexts(parser, CPU_CONTEXTS)
    flags.add_budgets(parser, "--token-budget")
    flags.add_steps(parser)
    flags.add_rounds(parser, 3)
    flags.add_text(parser)
    flags.add_rivals(parser, CPU_RIVALS)
    parser.add_argument(
        "--rival-llamacpp", action="store_true", help="llama.cpp too, where llama-cpp-python is installed"
    )
    parser.add_argument(
        "--scored-tokens",
        type=at_least(0),
        default=512,
        metavar="N",
        help="tokens of the text fed one by one, dense and with Quest, to compare their perplexity; 0: none "
        "(default: %(default)s)",
    )


def _measure_cpu(settings: AppSettings, arguments: argparse.Namespace) -> dict[str, Any]:
    from app.measure.benchmarks.cpu import measure_cpu

    return measure_cpu(
        settings,
        contexts=arguments.contexts or CPU_CONTEXTS,
        budgets=arguments.budgets or [settings.token_budget],
        steps=arguments.steps,
        rounds=arguments.rounds,
        rivals=arguments.rivals,
        with_llamacpp=arguments.rival_llamacpp,
        scored_tokens=arguments.scored_tokens,
        text=arguments.text,
        on_progress=print_progress,
    )


def _add_reopen(parser: argparse.ArgumentParser) -> None:
    flags.add_shapes(parser)
    parser.add_argument(
        "--contexts",
        type=number_list,
        metavar="N,N",
        help=f"with --shape: context lengths in tokens (default: {join_numbers(REOPEN_SHAPE_CONTEXTS)})",
    )
    flags.add_rounds(parser, 5)
    flags.add_text(parser, "the sample book, once as it is and once 15000 tokens of it")


def _measure_reopen(settings: AppSettings, arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.shape:
        from app.measure.benchmarks.reopen_shapes import measure_reopen_shapes

        return measure_reopen_shapes(
            settings,
            shapes=arguments.shape,
            contexts=arguments.contexts or REOPEN_SHAPE_CONTEXTS,
            weight_bits=settings.weight_bits,
            rounds=arguments.rounds,
            on_progress=print_progress,
        )
    from app.measure.benchmarks.reopen import measure_reopen

    if arguments.contexts:
        raise UserFacingError("bench reopen reads the sample book and --text as they are; leave --contexts out.")
    text = [] if arguments.text is None else [arguments.text]
    return measure_reopen(settings, rounds=arguments.rounds, documents=text, on_progress=print_progress)


def _add_page(parser: argparse.ArgumentParser) -> None:
    flags.add_rounds(parser, 5)


def _measure_page(settings: AppSettings, arguments: argparse.Namespace) -> dict[str, Any]:
    from app.measure.benchmarks.page import measure_page

    return measure_page(settings, rounds=arguments.rounds, on_progress=print_progress)


def _add_api(parser: argparse.ArgumentParser) -> None:
    flags.add_contexts(parser, API_CONTEXTS)
    flags.add_steps(parser)
    flags.add_rounds(parser, 5)
    flags.add_text(parser, "the sample book")


def _measure_api(settings: AppSettings, arguments: argparse.Namespace) -> dict[str, Any]:
    from app.measure.benchmarks.api import measure_api

    return measure_api(
        settings,
        contexts=arguments.contexts or API_CONTEXTS,
        steps=arguments.steps,
        rounds=arguments.rounds,
        text=arguments.text,
        on_progress=print_progress,
    )


def _subjects(settings: AppSettings, arguments: argparse.Namespace) -> list[Any]:
    """The model that is loaded, or those of random weights."""
    from app.measure.benchmarks.subjects.subjects import LoadedSubject, RandomSubject

    if arguments.shape:
        return [RandomSubject(shape, settings, settings.weight_bits) for shape in arguments.shape]
    return [LoadedSubject(settings, print_progress)]


def _contexts(arguments: argparse.Namespace, of_shapes: Sequence[int]) -> Sequence[int]:
    return arguments.contexts or (of_shapes if arguments.shape else LOADED_CONTEXTS)


def _budgets(settings: AppSettings, arguments: argparse.Namespace) -> Sequence[int]:
    return arguments.budgets or (SHAPE_BUDGETS if arguments.shape else [settings.token_budget])


_MANY_BITS = tuple(flag for flag in MODEL_FLAGS if flag is not WEIGHT_BITS)
BENCHMARKS = {
    "decode": Measurement(
        "one token end to end; of a loaded model, or with --shape of random weights",
        (*_MANY_BITS, TOKEN_BUDGET, *LAYOUT_FLAGS, DATA_DIR),
        _add_decode,
        _measure_decode,
    ),
    "kernels": Measurement(
        "attention of one token in one layer, on a GPU", LAYOUT_FLAGS, _add_kernels, _measure_kernels
    ),
    "products": Measurement(
        "a weight matrix times one token's vector, in 16, 8 and 4 bits, on a GPU",
        (),
        _add_products,
        _measure_products,
        draws=False,
    ),
    "prefill": Measurement(
        "reading a document", (*MODEL_FLAGS, *LAYOUT_FLAGS, DATA_DIR), _add_prefill, _measure_prefill
    ),
    "trace": Measurement(
        "what the record of the pages read costs",
        (*MODEL_FLAGS, TOKEN_BUDGET, *LAYOUT_FLAGS, DATA_DIR),
        _add_trace,
        _measure_trace,
    ),
    "cpu": Measurement(
        "prefill, decoding, memory and agreement on the CPU, against Transformers and llama.cpp",
        (MODEL, DTYPE, WEIGHT_BITS, OFFLINE, TOKEN_BUDGET, DENSE_LAYERS, PAGE_SIZE, SUMMARY_BITS, SELECTION, DATA_DIR),
        _add_cpu,
        _measure_cpu,
    ),
    "reopen": Measurement(
        "the first word of an answer over a document that was read before, and one that was not",
        (*MODEL_FLAGS, *LAYOUT_FLAGS, DATA_DIR),
        _add_reopen,
        _measure_reopen,
        draws=False,
    ),
    "page": Measurement(
        "first paint, usable page, and frames a second while an answer streams, in a real browser",
        (MODEL, DEVICE, DTYPE),
        _add_page,
        _measure_page,
        draws=False,
    ),
    "api": Measurement(
        "first token and tokens a second through the API, over the same session in Python",
        (*MODEL_FLAGS, TOKEN_BUDGET, *LAYOUT_FLAGS, DATA_DIR),
        _add_api,
        _measure_api,
        draws=False,
    ),
}
