"""What the user may set, what is refused of it, and what the environment says.

Every flag (`app.flags`) has an environment variable QUEST_CHAT_<FLAG> as its default, which is read here. Elsewhere the
environment is only handed on to processes that are started (`app.limited_process`, `launch.py`, Tesseract's in
`app.library`), except that `launch.py`, which runs before this can be imported, reads TORCH_INDEX_URL, and that
`app.web.server` tells Gradio its folder. Knows nothing of what the settings do.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from app.errors import UserFacingError
from quest_core.config import (
    KV_BITS,
    PAGE_SIZES,
    WEIGHT_BITS,
    AttentionSetting,
    EngineConfig,
    QuestConfig,
)

APP_NAME = "quest-chat"
# Why something is not there with --engine-url; what it is comes before.
NEEDS_OUR_CACHE = "needs the cache of Quest Chat's own engine, and --engine-url has another one answer."
API_KEY_FLAG, ENGINE_KEY_FLAG = "api-key", "engine-key"
LEAST_CONTEXT_TOKENS = 256
LEAST_CACHE_BYTES, MOST_CACHE_BYTES, CACHE_SHARE_OF_FREE_DISK = 1 << 30, 50 << 30, 4


@dataclass(frozen=True)
class AppSettings:
    """Settings of one run of the app.

    Args:
        model: "embedded", a hub id, a model folder or a .gguf file.
        context_tokens: window wanted; None takes the model's own, twice that of the embedded model.
        token_budget: tokens attended per layer and kv head with Quest.
        page_size: tokens in a KV page.
        selection: what Quest chooses pages by, one of `SELECTIONS`, or a rival that an evaluation measures.
        summary_bits: of each number that sums up a page; 16 keeps them in the cache's own dtype.
        kv_bits: of keys and values in the cache; 16 keeps them in `dtype`, 8 is for GPUs.
        dense_layers: the first layers, which read everything.
        attention: one of `quest_core.config.ATTENTIONS`; "auto" reads all while that is not slower than Quest.
        device: "auto", "cuda" or "cpu".
        dtype: "auto", "float32", "bfloat16" or "float16".
        weight_bits: 16, 8 or 4; of the model's matrices.
        eager: launch kernels one by one on a GPU, instead of as a CUDA graph.
        offline: never ask the hub.
        data_dir: where all that is kept lies: documents, conversations, what models have read, converted models.
        ocr_languages: in which text is recognised, as Tesseract takes them: "eng+deu"; "" for those that are installed.
        cache_bytes: what models have read may take of the disk; None takes a share of what is free there.
        engine_url: address of another engine that answers in place of our own (`app.remote`); "" for our own.
        engine_key: what it is asked with; "" for none.
        engine_model: which of its models; "" for the one that it has.
        host, port: address of the page.
        no_browser: do not open a browser.
        headless: serve library and API alone, without the page.
        no_api: serve no API for other programs.
        api_key: the key that the server asks for; "" makes one where it is needed (`app.web.access.key`).
        new_api_key: make another in place of the one that was made before.
    """

    data_dir: Path
    model: str = "embedded"
    context_tokens: int | None = None
    token_budget: int = QuestConfig.token_budget
    page_size: int = EngineConfig.page_size
    selection: str = EngineConfig.selection
    summary_bits: int = EngineConfig.summary_bits
    kv_bits: int = EngineConfig.kv_bits
    dense_layers: int = QuestConfig.dense_layers
    attention: AttentionSetting = "auto"
    device: str = EngineConfig.device
    dtype: str = EngineConfig.dtype
    weight_bits: int = EngineConfig.weight_bits
    eager: bool = EngineConfig.eager
    offline: bool = EngineConfig.offline
    ocr_languages: str = ""
    cache_bytes: int | None = None
    engine_url: str = ""
    engine_key: str = field(default="", repr=False)
    engine_model: str = ""
    host: str = "127.0.0.1"
    port: int = 7860
    no_browser: bool = False
    headless: bool = False
    no_api: bool = False
    # Not in a log or a traceback that shows the settings.
    api_key: str = field(default="", repr=False)
    new_api_key: bool = False

    def __post_init__(self) -> None:
        if self.weight_bits not in WEIGHT_BITS:
            raise UserFacingError(f"--weight-bits must be one of {WEIGHT_BITS}, not {self.weight_bits}.")
        if self.kv_bits not in KV_BITS:
            raise UserFacingError(f"--kv-bits must be one of {KV_BITS}, not {self.kv_bits}.")
        if self.page_size not in PAGE_SIZES:
            raise UserFacingError(f"--page-size must be one of {PAGE_SIZES}, not {self.page_size}.")
        if self.token_budget < 3 * self.page_size:
            raise UserFacingError(
                f"--token-budget must be at least three pages ({3 * self.page_size} tokens), not {self.token_budget}: "
                "the first, the last full and the current page are always read."
            )
        if self.dense_layers < 0:
            raise UserFacingError(f"--dense-layers must not be negative, and is {self.dense_layers}.")
        if self.context_tokens is not None and self.context_tokens < LEAST_CONTEXT_TOKENS:
            least = LEAST_CONTEXT_TOKENS
            raise UserFacingError(f"--context-tokens must be at least {least}, not {self.context_tokens}.")
        if not 1 <= self.port <= 65535:
            raise UserFacingError(f"--port must be between 1 and 65535, not {self.port}.")

        if self.engine_url:
            self._check_other_engine()
        elif self.engine_key or self.engine_model:
            raise UserFacingError("--engine-key and --engine-model need the address of an engine: --engine-url.")

    def _check_other_engine(self) -> None:
        from app.remote.server_address import ServerAddress

        ServerAddress.of(self.engine_url, self.engine_key)
        if self.model != AppSettings.model:
            raise UserFacingError("--model is for our own engine. With --engine-url, --engine-model names the model.")
        if self.attention != AppSettings.attention:
            raise UserFacingError(f"--attention {self.attention} {NEEDS_OUR_CACHE}")

    @property
    def cache_dir(self) -> Path:
        """Where converted models are kept."""
        return self.data_dir / "models"

    @property
    def snapshot_dir(self) -> Path:
        """Where it is kept what models have read."""
        return self.data_dir / "snapshots"

    @property
    def page_address(self) -> str:
        """Where the page is open on this machine."""
        return page_address(self.host, self.port)

    def with_context(self, context_tokens: int) -> AppSettings:
        """The same settings with another window."""
        return replace(self, context_tokens=context_tokens)

    def engine_config(
        self,
        context_tokens: int | None = None,
        keeps_snapshots: bool = False,
        snapshots_read_only: bool = False,
    ) -> EngineConfig:
        """What the engine is loaded with.

        Args:
            context_tokens: takes the place of the window that was set.
            keeps_snapshots: what is read is kept on the disk, and comes back from there.
            snapshots_read_only: it only comes from there.
        """
        snapshots: dict[str, Any] = {}
        if keeps_snapshots:
            snapshots = {
                "snapshot_dir": self.snapshot_dir,
                "snapshot_bytes": self.cache_bytes or default_cache_bytes(self.data_dir),
                "snapshots_read_only": snapshots_read_only,
            }
        return EngineConfig(
            device=self.device,
            dtype=self.dtype,
            weight_bits=self.weight_bits,
            page_size=self.page_size,
            selection=self.selection,
            summary_bits=self.summary_bits,
            kv_bits=self.kv_bits,
            context_tokens=context_tokens or self.context_tokens,
            eager=self.eager,
            offline=self.offline,
            cache_dir=self.cache_dir,
            **snapshots,
        )


def environment_variable(flag: str, environment: Mapping[str, str] | None = None) -> tuple[str, str]:
    """Name and text of the environment variable that is a flag's default; the text is "" where it is not set.

    Args:
        flag: its name without dashes, e.g. "page-size".
        environment: None takes the process's.
    """
    name = "QUEST_CHAT_" + flag.upper().replace("-", "_")
    return name, (os.environ if environment is None else environment).get(name, "")


def settings_from(arguments: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> AppSettings:
    """The settings a parsed command line asks for.

    Raises:
        UserFacingError: for a value out of range.
    """
    names = {field.name for field in fields(AppSettings)}
    values = {name: value for name, value in vars(arguments).items() if name in names}
    if values.get("model", "") is None:
        del values["model"]
    data_dir = values.get("data_dir") or default_data_dir(environment)
    try:
        values["data_dir"] = Path(data_dir).expanduser().resolve()
    except (OSError, RuntimeError) as error:
        raise UserFacingError(f"--data-dir {data_dir} names no folder: {error}") from error
    return AppSettings(**values)


def default_cache_bytes(data_dir: Path) -> int:
    """What models have read may take on the disk of that folder: a quarter of what is free, within limits.

    What was kept there before counts as free: the share would otherwise shrink from start to start.
    """
    existing = next((folder for folder in (data_dir, *data_dir.parents) if folder.exists()), data_dir)
    try:
        free_bytes = shutil.disk_usage(existing).free
        kept_bytes = sum(path.stat().st_size for path in (data_dir / "snapshots").rglob("*") if path.is_file())
    except OSError:
        return LEAST_CACHE_BYTES
    return min(MOST_CACHE_BYTES, max(LEAST_CACHE_BYTES, (free_bytes + kept_bytes) // CACHE_SHARE_OF_FREE_DISK))


def page_address(host: str, port: int) -> str:
    """The address to open in a browser on this machine."""
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    if ":" in name and not name.startswith("["):
        name = f"[{name}]"
    return f"http://{name}:{port}"


def default_data_dir(environment: Mapping[str, str] = os.environ) -> Path:
    """The platform's folder for an app's data.

    Raises:
        UserFacingError: if the user has no home folder.
    """
    try:
        home = Path.home()
    except RuntimeError as error:
        raise UserFacingError("You have no home folder. Name a data folder with --data-dir.") from error
    if sys.platform == "win32":
        base = Path(environment.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = Path(environment.get("XDG_DATA_HOME") or home / ".local" / "share")
    return base / APP_NAME


def default_data_dir_text() -> str:
    """`default_data_dir` for a help text."""
    try:
        return str(default_data_dir())
    except UserFacingError:
        return "none, as you have no home folder"


def take_launcher_pid(environment: MutableMapping[str, str] = os.environ) -> int | None:
    """The process of `launch.py` that has started this one, or None. What this one starts is not told of it."""
    pid = environment.pop("QUEST_CHAT_LAUNCHER_PID", "")
    return int(pid) if pid.isdecimal() else None


def forget_api_key(environment: MutableMapping[str, str] = os.environ) -> None:
    """Take keys out of the environment once they are read: no process that this one starts need know them."""
    for flag in (API_KEY_FLAG, ENGINE_KEY_FLAG):
        environment.pop(environment_variable(flag, environment)[0], None)


# How long OpenMP's threads spin for the next parallel part before they sleep. By default they spin for milliseconds,
# and where other programs want the same cores they spin while the others compute: docs/kernels.md has what it costs.
# GNU's (torch on Linux) counts rounds, LLVM's and Intel's (macOS, Windows) milliseconds.
_OPENMP_SPINNING = {"GOMP_SPINCOUNT": "20000", "KMP_BLOCKTIME": "1"}


def set_library_defaults(offline: bool) -> None:
    """Set what libraries do on their own, where the user has not; call before they are imported."""
    quiet = {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    # Whoever chose a policy has chosen: a count of rounds would take precedence over it.
    if "OMP_WAIT_POLICY" not in os.environ:
        for name, value in _OPENMP_SPINNING.items():
            os.environ.setdefault(name, value)
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
