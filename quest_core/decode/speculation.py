"""Decode steps that give what dense ones give, and take less time: the model drafts with Quest and verifies densely.

Speculative decoding (arXiv 2211.17192, 2302.01318) with the model as its own draft model. Quest steps, which read few
pages, draft some tokens; one dense pass over all of them reads every page once and tells what dense steps would have
drawn. Drafts count as far as they are the same. A draft is drawn with the very chance that its verification will draw
with, so that a sampled token is accepted, too, where it is the one that dense decoding draws with this seed: every
answer is dense decoding's token for token, and its distribution needs no correction (arXiv 2408.07978 compares this
coupling with rejection sampling). `draft_length` decides how many are drafted. Knows nothing of stop tokens but that
nothing is drafted after one.
"""

from __future__ import annotations

import time
from collections import deque

import torch

from kernels.contract import PageBudget
from quest_core.cache.cache_layout import dense_bytes, scored_bytes
from quest_core.cache.paged_kv_cache import PoolExhausted, SequenceCache
from quest_core.decode.answer_steps import FinishedStep, RoundShare, append_token
from quest_core.decode.draft_attention import DraftAttention
from quest_core.decode.draft_length import DraftLength, FinishedRound
from quest_core.decode.sampling import Sampler
from quest_core.decoder import Decoder


class SpeculativeSteps:
    """Steps of which one round of drafting and verifying gives several.

    A verified token is counted in the cache when its step is finished, though its key and value are there already: who
    stops between two steps leaves no trace, as with other steps. The summary of the last page is then of more keys than
    count; the next token that is appended makes it anew, before anything is selected by it.

    Args:
        decoder: the model, which must be able to verify.
        cache: of the sequence.
        drafting: attention of the drafts.
        sampler: draws the tokens.
        max_tokens: that the sequence may grow to.
    """

    looks_ahead = False
    launched = 0

    def __init__(
        self, decoder: Decoder, cache: SequenceCache, drafting: DraftAttention, sampler: Sampler, max_tokens: int
    ) -> None:
        self._decoder = decoder
        self._cache = cache
        self._drafting = drafting
        self._sampler = sampler
        self._max_tokens = max_tokens
        self._token_id = -1  # drawn last, of those whose steps are finished
        self._drawn_tokens = 0
        self._verified: deque[FinishedStep] = deque()
        self._length = DraftLength()

    def begin(self, logits: torch.Tensor) -> int:
        """Draw the answer's first token from the logits after the prompt."""
        self._count(self._sampler.read(self._sampler.draw(logits)))
        return self._token_id

    def launch(self) -> None:
        """Nothing runs before `finish`."""

    def finish(self) -> FinishedStep:
        """Take the next verified token, from a new round if none is left.

        Raises:
            NotANumberError: if there is nothing to draw it from.
            PoolExhausted: if the page pool is full.
        """
        if not self._verified:
            self._run_round()
        elif self._cache.num_pages * self._cache.pool.page_size <= self._cache.length_tokens:
            self._append_again()
        finished = self._verified.popleft()
        self._cache.advance(1)
        self._count(finished.token_id)
        return finished

    def _count(self, token_id: int) -> None:
        self._token_id = token_id
        self._drawn_tokens += 1

    def _run_round(self) -> None:
        start = time.perf_counter()
        drafts, confidences, draft_s = self._draft()
        drafted = time.perf_counter()
        try:
            self._cache.reserve(1 + len(drafts))
        except PoolExhausted:
            drafts, confidences, draft_s = [], [], []
            self._cache.reserve(1)
        logits = self._verify([self._token_id, *drafts])
        # What follows is a part of any step; what is compared are steps and passes.
        verified = time.perf_counter()
        token_ids = self._draw(logits, drafts)
        accepted = len(token_ids) - 1
        self._length.finish(FinishedRound(confidences, accepted, draft_s, verified - drafted))
        bytes_read = self._bytes_read(len(drafts)) // len(token_ids)
        step_s = (time.perf_counter() - start) / len(token_ids)
        for row, token_id in enumerate(token_ids):
            counts = (len(drafts), accepted) if row == 0 else (0, 0)
            self._verified.append(FinishedStep(token_id, logits[row], None, RoundShare(step_s, bytes_read, *counts)))

    def _draft(self) -> tuple[list[int], list[float], list[float]]:
        """Draft tokens, of which the cache counts none afterwards; with their confidences and seconds."""
        cache, sampler, config = self._cache, self._sampler.fork(), self._sampler.config
        length_tokens, token_id = cache.length_tokens, self._token_id
        # The round brings one token more than are drafted.
        most = min(config.max_new_tokens - self._drawn_tokens, self._max_tokens - length_tokens) - 1
        drafts: list[int] = []
        confidences: list[float] = []
        draft_s: list[float] = []
        if self._budget() is None:  # a draft would read what a dense step reads
            return drafts, confidences, draft_s
        self._drafting.begin_round()
        try:
            while (
                len(drafts) < most
                and token_id not in config.stop_token_ids
                and self._length.wants_another(confidences)
            ):
                start = time.perf_counter()
                fed = torch.tensor([token_id], device=self._decoder.device)
                logits = append_token(self._decoder, cache, fed, self._drafting)
                token_id = sampler.read(sampler.draw(logits))
                drafts.append(token_id)
                confidences.append(float((logits.max() - logits.logsumexp(dim=0)).exp()))
                draft_s.append(time.perf_counter() - start)
        except PoolExhausted:
            pass  # fewer are drafted
        finally:
            cache.truncate(length_tokens)
        return drafts, confidences, draft_s

    def _verify(self, token_ids: list[int]) -> torch.Tensor:
        """Append tokens, without counting them, and tell the logits after each."""
        fed = torch.tensor(token_ids, device=self._decoder.device)
        return self._decoder.verify(fed, self._cache.pool, self._cache.view(len(token_ids)))

    def _draw(self, logits: torch.Tensor, drafts: list[int]) -> list[int]:
        """What dense decoding draws, up to the first that was not drafted."""
        token_ids: list[int] = []
        for row in range(len(logits)):
            token_ids.append(self._sampler.read(self._sampler.draw(logits[row])))
            if row < len(drafts) and token_ids[row] != drafts[row]:
                break
        return token_ids

    def _append_again(self) -> None:
        """Write what was verified once more: a fork has dropped the pages that the cache did not count."""
        token_ids = [self._token_id, *(finished.token_id for finished in self._verified)][:-1]
        self._cache.reserve(len(token_ids))
        self._verify(token_ids)

    def _budget(self) -> PageBudget | None:
        """What drafts read in the layers that select; None where Quest reads everything."""
        return self._drafting.budget_for(self._drafting.dense_layers, self._cache.view(1))

    def _bytes_read(self, drafts: int) -> int:
        """Keys, values and summaries that a round reads."""
        pool, pages = self._cache.pool, -(-(self._cache.length_tokens + 1 + drafts) // self._cache.pool.page_size)
        layers, dense_layers = len(pool.layers), min(self._drafting.dense_layers, len(pool.layers))
        dense, bytes_read = dense_bytes(pool.layout, pages), 0
        if drafts:
            budget_pages = self._budget().pages
            each = dense_layers * dense + (layers - dense_layers) * dense_bytes(pool.layout, budget_pages)
            # The summaries are read once, by the first.
            scored = pool.layout.kv_heads * scored_bytes(pool.layout, pages)
            bytes_read = drafts * each + (layers - dense_layers) * scored
        return bytes_read + layers * dense
