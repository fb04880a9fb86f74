"""Decode steps that come several at a time: what rounds of speculative decoding have in common, wherever they run.

A round drafts some tokens and verifies them by one dense pass, which leaves their keys and values in the cache. Its
tokens are then given one by one. Knows nothing of how tokens are drafted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque

import torch

from quest_core.cache.cache_layout import dense_bytes, scored_bytes
from quest_core.cache.paged_kv_cache import SequenceCache
from quest_core.decode.answer_steps import FinishedStep, RoundShare
from quest_core.decode.sampling import Sampler


class VerifiedSteps(ABC):
    """Steps of which one round gives several.

    A verified token is counted in the cache when its step is finished, though its key and value are there already: who
    stops between two steps leaves no trace, as with other steps. The summary of the last page is then of more keys than
    count; the next token that is appended makes it anew, before anything is selected by it.

    Args:
        cache: of the sequence.
        sampler: draws the first token; its parameters and chance serve the others.
        max_tokens: that the sequence may grow to.
    """

    looks_ahead = False
    launched = 0

    def __init__(self, cache: SequenceCache, sampler: Sampler, max_tokens: int) -> None:
        self._cache = cache
        self._sampler = sampler
        self._max_tokens = max_tokens
        self._token_ids: list[int] = []  # the answer's, of those whose steps are finished
        self._verified: deque[FinishedStep] = deque()

    def begin(self, logits: torch.Tensor) -> int:
        """Draw the answer's first token from the logits after the prompt."""
        self._token_ids.append(self._sampler.read(self._sampler.draw(logits)))
        return self._token_ids[0]

    def launch(self) -> None:  # noqa: B027
        """Nothing runs before `finish`."""

    def finish(self) -> FinishedStep:
        """Take the next verified token, from a new round if none is left.

        Raises:
            NotANumberError: if there is nothing to draw it from.
            PoolExhausted: if the page pool is full.
        """
        if not self._verified:
            self._verified.extend(self._run_round())
        elif self._cache.num_pages * self._cache.pool.page_size <= self._cache.length_tokens:
            self._append_again()
        finished = self._verified.popleft()
        self._cache.advance(1)
        self._token_ids.append(finished.token_id)
        return finished

    @abstractmethod
    def _run_round(self) -> list[FinishedStep]:
        """Draft, verify, and tell the steps of at least one token; the cache counts none of them afterwards."""

    @abstractmethod
    def _append(self, token_ids: list[int]) -> None:
        """Write tokens to pages that are reserved, without counting them."""

    def _append_again(self) -> None:
        """Write what was verified once more: a fork has dropped the pages that the cache did not count."""
        token_ids = [self._token_ids[-1], *(finished.token_id for finished in self._verified)][:-1]
        self._cache.reserve(len(token_ids))
        self._append(token_ids)

    @property
    def _most_drafts(self) -> int:
        """That the limits of the answer and of the sequence leave room for; a round brings one token more."""
        left = self._sampler.config.max_new_tokens - len(self._token_ids)
        return min(left, self._max_tokens - self._cache.length_tokens) - 1

    def _describe(
        self, token_ids: list[int], logits: torch.Tensor, drafted: int, step_s: float, bytes_read: int
    ) -> list[FinishedStep]:
        """A round's steps.

        Args:
            token_ids: that it gave.
            logits: float32 [rows, vocab_size], after each token that was verified.
            drafted: how many tokens were.
            step_s, bytes_read: of each token.
        """
        steps = []
        for row, token_id in enumerate(token_ids):
            counts = (drafted, len(token_ids) - 1) if row == 0 else (0, 0)
            steps.append(FinishedStep(token_id, logits[row], None, RoundShare(step_s, bytes_read, *counts)))
        return steps

    def _bytes_read(self, drafts: int, dense_layers: int, budget_pages: int) -> int:
        """Keys, values and summaries that a round reads.

        Args:
            drafts: of the round.
            dense_layers: the first layers, of which drafts read everything.
            budget_pages: that drafts read of each other layer.
        """
        pool, pages = self._cache.pool, -(-(self._cache.length_tokens + 1 + drafts) // self._cache.pool.page_size)
        layers = len(pool.layers)
        dense_layers = min(dense_layers, layers)
        dense, bytes_read = dense_bytes(pool.layout, pages), 0
        if drafts:
            each = dense_layers * dense + (layers - dense_layers) * dense_bytes(pool.layout, budget_pages)
            # The summaries are read once, by the first.
            scored = pool.layout.kv_heads * scored_bytes(pool.layout, pages)
            bytes_read = drafts * each + (layers - dense_layers) * scored
        return bytes_read + layers * dense
