"""Another engine's model, in the place of one of our own.

Prompts are planned with the embedded model's tokenizer, as the server's is not here, so that a count is an estimate: it
keeps a margin at first and is corrected by what the server counts. Knows nothing of conversations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from app.chat.answers.answer_work import Thinking
from app.chat.answers.thought_stream import thinking_limit
from app.chat.prompt.plan import PromptPlanner
from app.chat.prompt.template import ChatTokenizer
from app.errors import UserFacingError
from app.models.model_loader import LoadedModel, ModelStatus
from app.remote.served_model import UNKNOWN_WINDOW_TOKENS, ServedModel, served_model
from app.remote.server_address import ServerAddress
from app.settings import AppSettings
from quest_core.model.model_source import find_model

# The server's tokens for each of ours, before it has counted any.
_FIRST_RATIO = 1.1
_LEAST_RATIO, _MOST_RATIO = 0.5, 4.0
# Short prompts are mostly the server's template.
_LEAST_COUNTED_TOKENS = 200
# Kept free beside what is estimated.
_MARGIN = 0.03
# A smaller change of the ratio is not worth to count documents anew.
_WORTH_PLANNING = 0.02
_AFTER_TOO_LONG = 1.25


class EstimatingPlanner(PromptPlanner):
    """Plans prompts for a window that is counted in tokens of another tokenizer.

    Args:
        tokenizer: ours.
        window_tokens: the server's window, in its own tokens.
    """

    def __init__(self, tokenizer: ChatTokenizer, window_tokens: int) -> None:
        self._window_tokens = window_tokens
        self._ratio = _FIRST_RATIO
        super().__init__(tokenizer, self._own_window_tokens)

    @property
    def _own_window_tokens(self) -> int:
        return int(self._window_tokens * (1 - _MARGIN) / self._ratio)

    def served_tokens(self, own_tokens: int) -> int:
        """How many tokens of the server's so many of ours are likely to be."""
        return int(own_tokens * self._ratio)

    def take_count(self, own_tokens: int, served_tokens: int) -> None:
        """Note that the server has counted a prompt."""
        if own_tokens >= _LEAST_COUNTED_TOKENS:
            self._take_ratio(served_tokens / own_tokens)

    def take_too_long(self) -> None:
        """Note that a prompt was longer than the server takes."""
        self._take_ratio(self._ratio * _AFTER_TOO_LONG)

    def _take_ratio(self, ratio: float) -> None:
        ratio = min(_MOST_RATIO, max(_LEAST_RATIO, ratio))
        if abs(ratio / self._ratio - 1) >= _WORTH_PLANNING:
            self._ratio = ratio
            super().__init__(self._tokenizer, self._own_window_tokens)


class RemoteEngine:
    """What is known of another engine; it has no cache of ours, and nothing here runs.

    Args:
        address: of its server.
        served: its model.
        context_tokens: its window.
        page_size: of the settings; reports name one.

    Attributes:
        refused: names of request fields that the server does not know.
        thinks: whether the model thinks before it answers; None until it has answered.
    """

    snapshots = None

    def __init__(self, address: ServerAddress, served: ServedModel, context_tokens: int, page_size: int) -> None:
        self.address = address
        self.model_id = served.model_id
        self.model_name = served.name
        self.device_name = address.shown
        self.context_tokens = context_tokens
        self.page_size = page_size
        self.refused: set[str] = set()
        self.thinks: bool | None = None

    def forget(self, owner: str) -> None:
        """Nothing of a document is kept here."""

    def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True)
class RemoteModel(LoadedModel):
    """Another engine, and how prompts for it are planned."""

    engine: RemoteEngine
    planner: EstimatingPlanner

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        return ()

    @property
    def vocab_size(self) -> int:
        return 1 << 31  # what is no text of the tokenizer is found by its text

    @property
    def is_remote(self) -> bool:
        return True

    @property
    def thinking(self) -> Thinking:
        """It may think; its own template knows how."""
        return Thinking(False, thinking_limit(self.engine.context_tokens), ())


def connect(settings: AppSettings, status: ModelStatus) -> tuple[RemoteModel, ModelStatus]:
    """Ask another engine what it serves.

    Args:
        settings: engine_url, engine_key, engine_model and the window.
        status: to be filled in.

    Raises:
        UserFacingError: it cannot be asked, or takes too little.
    """
    address = ServerAddress.of(settings.engine_url, settings.engine_key)
    served = served_model(address, settings.engine_model)
    known, wanted = served.context_tokens, settings.context_tokens
    window = min(filter(None, (known, wanted)), default=UNKNOWN_WINDOW_TOKENS)
    note = ""
    if known is None and wanted is None:
        note = (
            f"{address.shown} does not say how much its model takes: {window:,} tokens are reckoned with. "
            "If it is more, say so with --context-tokens."
        )
    try:
        _, folder = find_model(AppSettings.model, settings.cache_dir, offline=settings.offline)
    except (ValueError, OSError) as error:
        raise UserFacingError(str(error)) from error
    tokenizer = ChatTokenizer(Path(folder))
    engine = RemoteEngine(address, served, window, settings.page_size)
    model = RemoteModel(engine, tokenizer, EstimatingPlanner(tokenizer, window))
    return model, replace(
        status,
        message=f"{served.name} is ready at {address.shown}.",
        model=served.name,
        device=address.shown,
        context_tokens=window,
        note=note,
        warning=note,
        demonstration=False,
        reference=served.model_id,
        engine_url=address.shown,
    )
