"""The flags that set `AppSettings`, each declared once; a subcommand takes those that mean something to it.

A flag's default is its environment variable, else that of `AppSettings`. What else a subcommand takes stands beside it.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import UserFacingError
from app.settings import API_KEY_FLAG, ENGINE_KEY_FLAG, AppSettings, default_data_dir_text, environment_variable
from quest_core.config import ATTENTIONS, DTYPES, PAGE_SIZES, SELECTIONS

ALL_INTERFACES = "0.0.0.0"
_TRUE = ("1", "true", "yes", "on")


def byte_size(text: str) -> int:
    """A size as people write it: "20G", "1.5T", "500M", "1073741824"; the letters count by 1,024.

    Raises:
        argparse.ArgumentTypeError: it is none, or nothing at all could be kept in it.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE | re.ASCII)
    size = int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " ")) if match else 0
    if size < 1:
        raise argparse.ArgumentTypeError(f"a size is written like 20G or 500M, not {text!r}")
    return size


@dataclass(frozen=True)
class Flag:
    """A flag whose value becomes the field of `AppSettings` of the same name.

    Args:
        name: without its dashes, e.g. "page-size".
        default: where neither the flag nor its environment variable is set.
        help: "%(default)s" stands for the default.
        kind: parses the text of a value; `bool` for a switch.
        choices: the values there are; () for any that `kind` takes.
        metavar: what stands for a value in `--help`.
        group: title that it stands under in `--help`; "" for none.
    """

    name: str
    default: Any
    help: str
    kind: Callable[[str], Any] = str
    choices: tuple[Any, ...] = ()
    metavar: str | None = None
    group: str = ""

    def value_in(self, environment: Mapping[str, str] | None) -> Any:
        """The value of its environment variable, or the default.

        Raises:
            UserFacingError: the variable holds no valid value.
        """
        name, text = environment_variable(self.name, environment)
        if self.kind is bool:
            return text.lower() in _TRUE
        if not text:
            return self.default
        try:
            value = self.kind(text)
        except argparse.ArgumentTypeError as error:
            raise UserFacingError(f"The environment variable {name}: {error}") from None
        except ValueError:
            raise UserFacingError(f"The environment variable {name} must be a number, not {text!r}.") from None
        if self.choices and value not in self.choices:
            names = ", ".join(map(str, self.choices))
            raise UserFacingError(f"The environment variable {name} must be one of {names}, not {text!r}.")
        return value


def add_flags(
    parser: argparse.ArgumentParser, flags: Iterable[Flag] | None = None, environment: Mapping[str, str] | None = None
) -> None:
    """Declare flags of a parser.

    Args:
        flags: all but the server's, if None.
        environment: for tests; None takes the process's.

    Raises:
        UserFacingError: if an environment variable holds no valid value.
    """
    groups: dict[str, argparse._ActionsContainer] = {"": parser}
    for flag in ALL_FLAGS if flags is None else flags:
        if flag.group not in groups:
            groups[flag.group] = parser.add_argument_group(flag.group)
        options: dict[str, Any] = {"action": "store_true"} if flag.kind is bool else {"type": flag.kind}
        if flag.choices:
            options["choices"] = flag.choices
        elif flag.metavar:
            options["metavar"] = flag.metavar
        groups[flag.group].add_argument(f"--{flag.name}", default=flag.value_in(environment), help=flag.help, **options)


def add_server_flags(parser: argparse.ArgumentParser, environment: Mapping[str, str] | None = None) -> None:
    """Declare the flags of `serve`.

    Raises:
        UserFacingError: if an environment variable holds no valid value.
    """
    add_flags(parser, (HOST, PORT, NO_BROWSER, HEADLESS, NO_API, API_KEY), environment)
    parser.add_argument(
        "--listen",
        nargs="?",
        const=ALL_INTERFACES,
        metavar="ADDRESS",
        dest=HOST.name,
        default=argparse.SUPPRESS,
        help="serve other machines too, which have to give a key; without an address on all interfaces",
    )
    parser.add_argument(
        "--new-api-key", action="store_true", help="make another key in place of the one that was made before"
    )


MODEL = Flag(
    "model",
    None,
    "hub id, model folder or .gguf file (default: the one chosen last in the page, else the embedded "
    "SmolLM2-135M-Instruct)",
    group="model",
)
CONTEXT_TOKENS = Flag(
    "context-tokens",
    AppSettings.context_tokens,
    "window in tokens; longer than the model's own stretches by YaRN the conversations that need it, which beyond "
    "twice costs retrieval (default: the model's; of the embedded one twice that)",
    int,
    metavar="N",
    group="model",
)
DEVICE = Flag("device", AppSettings.device, "(default: %(default)s)", choices=("auto", "cuda", "cpu"), group="model")
DTYPE = Flag("dtype", AppSettings.dtype, "(default: %(default)s)", choices=DTYPES, group="model")
WEIGHT_BITS = Flag(
    "weight-bits",
    AppSettings.weight_bits,
    "of the model's matrices: 16, or 8 or 4 to save memory; with 16 and --dtype auto the CPU decodes from packed "
    "copies of its own (default: %(default)s)",
    int,
    metavar="N",
    group="model",
)
EAGER = Flag(
    "eager",
    AppSettings.eager,
    "on a GPU, launch the kernels of a step one by one instead of as a CUDA graph; the tokens are the same",
    bool,
    group="model",
)
OFFLINE = Flag("offline", AppSettings.offline, "never ask the Hugging Face hub", bool, group="model")
ATTENTION = Flag(
    "attention",
    AppSettings.attention,
    "how answers read the KV cache: quest (selected pages), dense (everything), auto (everything while that is not "
    "slower than quest) or exact (as dense, drafted with quest where that is faster) (default: %(default)s)",
    choices=ATTENTIONS,
    group="attention",
)
TOKEN_BUDGET = Flag(
    "token-budget",
    AppSettings.token_budget,
    "tokens Quest attends per layer and head (default: %(default)s)",
    int,
    metavar="N",
    group="attention",
)
PAGE_SIZE = Flag(
    "page-size",
    AppSettings.page_size,
    f"tokens in a KV page: {', '.join(map(str, PAGE_SIZES[:-1]))} or {PAGE_SIZES[-1]} (default: %(default)s)",
    int,
    metavar="N",
    group="attention",
)
SUMMARY_BITS = Flag(
    "summary-bits",
    AppSettings.summary_bits,
    "bits of each element of a page's summary of its keys; 16: the cache's own precision (default: %(default)s)",
    int,
    (8, 16),
    group="attention",
)
KV_BITS = Flag(
    "kv-bits",
    AppSettings.kv_bits,
    "of the keys and values in the cache: 16, or 8 on a GPU to halve its memory (default: %(default)s)",
    int,
    metavar="N",
    group="attention",
)
DENSE_LAYERS = Flag(
    "dense-layers",
    AppSettings.dense_layers,
    "first layers that read everything (default: %(default)s; the paper: 2)",
    int,
    metavar="N",
    group="attention",
)
SELECTION = Flag(
    "selection",
    AppSettings.selection,
    "how pages are chosen: mean (ours) or quest (as the paper) (default: %(default)s)",
    choices=SELECTIONS,
    group="attention",
)
DATA_DIR = Flag(
    "data-dir",
    None,
    "where everything is kept: documents, conversations, what models have read, converted models (default: "
    f"{default_data_dir_text().replace('%', '%%')})",
    Path,
    metavar="DIR",
)
OCR_LANGUAGES = Flag(
    "ocr-languages",
    AppSettings.ocr_languages,
    'languages in which text is recognised in pictures, as Tesseract names them, e.g. "eng+deu" (default: those that '
    "are installed, if they are few, else English and the system's)",
    metavar="LANGS",
)
CACHE_BYTES = Flag(
    "cache-bytes",
    AppSettings.cache_bytes,
    "what models have read of documents may take so much of the disk, e.g. 20G; what was not used for longest goes "
    "first (default: a quarter of what is free, 1G to 50G)",
    byte_size,
    metavar="SIZE",
)
ENGINE_URL = Flag(
    "engine-url",
    AppSettings.engine_url,
    "address of an OpenAI-compatible server (vLLM, SGLang, llama.cpp) that answers in place of our own engine; "
    "docs/other-engines.md says what is absent then",
    metavar="URL",
    group="another engine",
)
ENGINE_KEY = Flag(
    ENGINE_KEY_FLAG,
    AppSettings.engine_key,
    "the key that this server asks for; others on this machine can see a command line, so better set "
    "QUEST_CHAT_ENGINE_KEY",
    metavar="KEY",
    group="another engine",
)
ENGINE_MODEL = Flag(
    "engine-model",
    AppSettings.engine_model,
    "which of its models (default: the one that it has)",
    metavar="NAME",
    group="another engine",
)
HOST = Flag("host", AppSettings.host, "address (default: %(default)s)", group="server")
PORT = Flag("port", AppSettings.port, "of the page (default: %(default)s)", int, metavar="N", group="server")
NO_BROWSER = Flag("no-browser", AppSettings.no_browser, "do not open a browser", bool, group="server")

HEADLESS = Flag(
    "headless", AppSettings.headless, "serve the API and the library alone, without the page", bool, group="server"
)
NO_API = Flag("no-api", AppSettings.no_api, "serve no API for other programs", bool, group="server")
API_KEY = Flag(
    API_KEY_FLAG,
    AppSettings.api_key,
    "the key of the server (default: with --listen one that is made at the first start and shown once, else none); "
    "others on this machine can see a command line, so better set QUEST_CHAT_API_KEY",
    metavar="KEY",
    group="server",
)

# What makes a model, and how its cache is laid out and scored.
MODEL_FLAGS = (MODEL, CONTEXT_TOKENS, DEVICE, DTYPE, WEIGHT_BITS, EAGER, OFFLINE)
LAYOUT_FLAGS = (PAGE_SIZE, SUMMARY_BITS, KV_BITS, SELECTION)
ALL_FLAGS = (
    *MODEL_FLAGS,
    ATTENTION,
    TOKEN_BUDGET,
    DENSE_LAYERS,
    *LAYOUT_FLAGS,
    DATA_DIR,
    OCR_LANGUAGES,
    CACHE_BYTES,
    ENGINE_URL,
    ENGINE_KEY,
    ENGINE_MODEL,
)
