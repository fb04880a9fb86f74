"""Speculative decoding over static buffers: what `speculation` does, for a GPU, where steps are CUDA graphs.

The host decides how long a round is, launches its drafts and its verification, and hears in one copy what came of them.
Drafts and verification draw with the same chance, token by token that of a dense answer, and a verified row has the
bits of a dense step: every answer is dense decoding's token for token. Where tokens are refused, the chance that they
were drawn with is drawn again for those that take their place. Knows nothing of stop tokens: what is drafted after one
is not asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from kernels.contract import SequenceView
from quest_core.cache.paged_kv_cache import PoolExhausted, SequenceCache
from quest_core.config import QuestConfig
from quest_core.decode.answer_steps import FinishedStep
from quest_core.decode.attention import page_budget
from quest_core.decode.decode_graph import read_shape, table_pages_for
from quest_core.decode.draft_length import DraftLength, FinishedRound
from quest_core.decode.round_buffers import split_report
from quest_core.decode.round_graphs import ROW_COUNTS, DraftShape, RoundGraphs, VerificationShape
from quest_core.decode.sampling import Sampler, read_token
from quest_core.decode.verified_steps import VerifiedSteps
from quest_core.decoder import Decoder


def draft_length_for(graphs: RoundGraphs, cache: SequenceCache, quest: QuestConfig) -> DraftLength | None:
    """Decides how many tokens an answer drafts that goes on from `cache`; None if it had better be decoded densely.

    A dense answer launches its steps ahead, which rounds cannot, even if they draft nothing: 0.2 ms a step on an H200.
    So it had better be where drafts would read what a dense step reads: in all layers, or with so few pages at the
    answer's beginning, though it may grow out of them.
    """
    page_size, drafts = cache.pool.page_size, _drafts_read(quest, cache)
    pages = -(-(cache.length_tokens + 1) // page_size)
    if page_budget(drafts, page_size).reads_all(pages) or quest.dense_layers >= len(cache.pool.layers):
        return None
    costs = graphs.costs_for_answer(drafts, table_pages_for(pages, graphs.buffers.window_pages))
    return None if costs is None else DraftLength(costs)


def _drafts_read(quest: QuestConfig, cache: SequenceCache) -> QuestConfig:
    return read_shape(replace(quest, attention="quest"), cache.pool.page_size)


class StaticSpeculativeSteps(VerifiedSteps):
    """Rounds over the buffers of `RoundGraphs`.

    Args:
        graphs: shared by all sessions.
        decoder: the model that they run.
        cache: of the sequence.
        quest: what drafts read.
        sampler: draws the first token; its parameters and chance serve the others.
        max_tokens: that the sequence may grow to.
        length: decides how many tokens each round drafts.
    """

    def __init__(
        self,
        graphs: RoundGraphs,
        decoder: Decoder,
        cache: SequenceCache,
        quest: QuestConfig,
        sampler: Sampler,
        max_tokens: int,
        length: DraftLength,
    ) -> None:
        super().__init__(cache, sampler, max_tokens)
        self._graphs = graphs
        self._decoder = decoder
        self._quest = _drafts_read(quest, cache)
        self._budget = page_budget(self._quest, cache.pool.page_size)
        self._length = length
        self._table_version = -1
        self._noted_tokens = 0  # of the answer's, those that the buffers know

    @torch.inference_mode()
    def _run_round(self) -> list[FinishedStep]:
        start = time.perf_counter()
        drafts = self._length.drafts_ahead(self._choices())
        try:
            self._cache.reserve(1 + drafts)
        except PoolExhausted:
            drafts = 0
            self._cache.reserve(1)
        draft_steps, verification = self._find_steps(drafts)
        self._write_round(drafted=0)
        chances = self._draw_chance(1 + drafts)
        clock = RoundClock(self._decoder.device)
        for draft in draft_steps:
            draft()
            clock.mark()
        verification()
        clock.mark()
        token_ids = self._read_tokens(drafts)
        if len(token_ids) < len(chances):
            self._sampler.generator.set_state(chances[len(token_ids)])
        *draft_s, verify_s = clock.read()
        self._length.finish(FinishedRound((), len(token_ids) - 1, draft_s, verify_s))
        # The buffer is the next round's.
        logits = self._graphs.buffers.logits[: len(token_ids)].clone()
        bytes_read = self._bytes_read(drafts, self._quest.dense_layers, self._budget.pages) // len(token_ids)
        step_s = (time.perf_counter() - start) / len(token_ids)
        return self._describe(token_ids, logits, drafts, step_s, bytes_read)

    def _choices(self) -> list[int]:
        """How many tokens this round may draft, beside none."""
        # A row has the bits of a step over a page table as long as its own, and so have all rows of a pass.
        table_pages = self._table_pages(self._pages(1))
        return [
            rows - 1
            for rows in ROW_COUNTS[1:]
            if rows - 1 <= self._most_drafts and self._table_pages(self._pages(rows)) == table_pages
        ]

    def _pages(self, new_tokens: int) -> int:
        return -(-(self._cache.length_tokens + new_tokens) // self._cache.pool.page_size)

    def _table_pages(self, pages: int) -> int:
        return table_pages_for(pages, self._graphs.buffers.window_pages)

    def _find_steps(self, drafts: int) -> tuple[list[Callable[[], None]], Callable[[], None]]:
        """What runs each draft, and the verification; prepared if they are not yet."""
        graphs, kind, table_pages = self._graphs, self._sampler.kind, self._table_pages(self._pages(1))
        verification = VerificationShape(table_pages, kind, 1 + drafts)
        shapes = [DraftShape(self._quest, table_pages, kind, selects=number == 0) for number in range(drafts)]
        for number, shape in enumerate(shapes[:2]):
            if graphs.find(shape) is None:
                self._write_round(drafted=0)
                if number:
                    graphs.find(shapes[0])()  # which pages it reads
                graphs.prepare(shape)
        if graphs.find(verification) is None:
            self._write_round(drafted=drafts)
            graphs.prepare(verification)
        return [graphs.find(shape) for shape in shapes], graphs.find(verification)

    def _write_round(self, drafted: int) -> None:
        """Write this round's beginning to the buffers, and what of this answer they do not know yet."""
        buffers, cache = self._graphs.buffers, self._cache
        if self._graphs.owner is not self:
            buffers.sampling.set(self._sampler.config, self._token_ids)
            self._graphs.owner, self._table_version = self, -1
        elif self._sampler.kind.penalised:
            for token_id in self._token_ids[self._noted_tokens :]:
                buffers.sampling.drawn[token_id].fill_(True)
        self._noted_tokens = len(self._token_ids)
        if self._table_version != cache.table_version:
            buffers.page_table.copy_(cache.whole_page_table)
            self._table_version = cache.table_version
        # A fill takes its value with it: a copy from the host would wait.
        buffers.token_ids[0].fill_(self._token_ids[-1])
        buffers.drafts.fill_(drafted)
        buffers.length_tokens.fill_(cache.length_tokens + 1 + drafted)

    def _draw_chance(self, rows: int) -> list[torch.Tensor]:
        """Draw the chance of each row in turn; the generator's state before each."""
        kind, generator = self._sampler.kind, self._sampler.generator
        states = []
        for of_row in self._graphs.buffers.verifying[:rows]:
            states.append(generator.get_state())
            of_row.draw_noise(kind, generator)
        return states

    def _read_tokens(self, drafts: int) -> list[int]:
        """Wait for what dense decoding draws, up to the first that was not drafted.

        Raises:
            NotANumberError: if there was nothing to draw one of them from.
        """
        device_report = self._graphs.buffers.report
        on_gpu = device_report.device.type == "cuda"
        report = torch.empty(len(device_report), dtype=torch.uint8, pin_memory=on_gpu)
        report.copy_(device_report, non_blocking=True)
        if on_gpu:
            torch.cuda.current_stream(device_report.device).synchronize()
        fed, drawn, highest = split_report(report)
        token_ids: list[int] = []
        for row in range(1 + drafts):
            token_ids.append(read_token(drawn[row], highest[row]))
            if row < drafts and token_ids[row] != int(fed[row + 1]):
                break
        return token_ids

    def _append(self, token_ids: Sequence[int]) -> None:
        """See `VerifiedSteps._append`; over a table as long as graphs have it, on which the bits depend."""
        done = 0
        while done < len(token_ids):
            rows = max(rows for rows in ROW_COUNTS if rows <= len(token_ids) - done)
            table = self._cache.whole_page_table[: self._table_pages(self._pages(done + 1))]
            length_tokens = self._cache.view(done + rows).length_tokens
            fed = torch.tensor(token_ids[done : done + rows], device=self._decoder.device)
            self._decoder.verify(fed, self._cache.pool, SequenceView(table, length_tokens))
            done += rows


class RoundClock:
    """How long the steps of a round take, on the device that runs them.

    Args:
        device: of the steps; the first begins now.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._marks: list = []
        self.mark()

    def mark(self) -> None:
        """A step ends here, and the next begins."""
        if self._on_gpu:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())

    def read(self) -> list[float]:
        """Seconds between marks, once the device has reached the last."""
        pairs = zip(self._marks, self._marks[1:], strict=False)
        if self._on_gpu:
            return [first.elapsed_time(second) / 1e3 for first, second in pairs]
        return [second - first for first, second in pairs]
