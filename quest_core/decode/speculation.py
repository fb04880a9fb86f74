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

import torch

from kernels.contract import PageBudget
from quest_core.cache.paged_kv_cache import PoolExhausted, SequenceCache
from quest_core.decode.answer_steps import FinishedStep, append_token
from quest_core.decode.draft_attention import DraftAttention
from quest_core.decode.draft_length import DraftLength, FinishedRound
from quest_core.decode.sampling import Sampler
from quest_core.decode.verified_steps import VerifiedSteps
from quest_core.decoder import Decoder


class SpeculativeSteps(VerifiedSteps):
    """Rounds that run at once, draft by draft, over tensors as long as the sequence.

    Args:
        decoder: the model, which must be able to verify.
        cache: of the sequence.
        drafting: attention of the drafts.
        sampler: draws the tokens.
        max_tokens: that the sequence may grow to.
    """

    def __init__(
        self, decoder: Decoder, cache: SequenceCache, drafting: DraftAttention, sampler: Sampler, max_tokens: int
    ) -> None:
        super().__init__(cache, sampler, max_tokens)
        self._decoder = decoder
        self._drafting = drafting
        self._length = DraftLength()

    def _run_round(self) -> list[FinishedStep]:
        start = time.perf_counter()
        drafts, confidences, draft_s = self._draft()
        drafted = time.perf_counter()
        try:
            self._cache.reserve(1 + len(drafts))
        except PoolExhausted:
            drafts, confidences, draft_s = [], [], []
            self._cache.reserve(1)
        logits = self._verify([self._token_ids[-1], *drafts])
        # What follows is a part of any step; what is compared are steps and passes.
        verified = time.perf_counter()
        token_ids = self._draw(logits, drafts)
        self._length.finish(FinishedRound(confidences, len(token_ids) - 1, draft_s, verified - drafted))
        budget_pages = self._budget().pages if drafts else 0
        bytes_read = self._bytes_read(len(drafts), self._drafting.dense_layers, budget_pages) // len(token_ids)
        step_s = (time.perf_counter() - start) / len(token_ids)
        return self._describe(token_ids, logits, len(drafts), step_s, bytes_read)

    def _draft(self) -> tuple[list[int], list[float], list[float]]:
        """Draft tokens, of which the cache counts none afterwards; with their confidences and seconds."""
        cache, sampler, stop_token_ids = self._cache, self._sampler.fork(), self._sampler.config.stop_token_ids
        length_tokens, token_id, most = cache.length_tokens, self._token_ids[-1], self._most_drafts
        drafts: list[int] = []
        confidences: list[float] = []
        draft_s: list[float] = []
        if self._budget() is None:  # a draft would read what a dense step reads
            return drafts, confidences, draft_s
        self._drafting.begin_round()
        try:
            while len(drafts) < most and token_id not in stop_token_ids and self._length.wants_another(confidences):
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

    def _append(self, token_ids: list[int]) -> None:
        self._verify(token_ids)

    def _draw(self, logits: torch.Tensor, drafts: list[int]) -> list[int]:
        """What dense decoding draws, up to the first that was not drafted."""
        token_ids: list[int] = []
        for row in range(len(logits)):
            token_ids.append(self._sampler.read(self._sampler.draw(logits[row])))
            if row < len(drafts) and token_ids[row] != drafts[row]:
                break
        return token_ids

    def _budget(self) -> PageBudget | None:
        """What drafts read in the layers that select; None where Quest reads everything."""
        return self._drafting.budget_for(self._drafting.dense_layers, self._cache.view(1))
