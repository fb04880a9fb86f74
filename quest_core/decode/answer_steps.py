"""How one answer's decode steps run: one by one, or over static buffers with a step launched ahead.

Both feed the token drawn last and count it in the cache when its step is finished; until then nothing of a step counts,
so that one too many leaves no trace. Knows nothing of stop tokens, of limits, or of when to stop.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np
import torch

from quest_core.cache.paged_kv_cache import SequenceCache
from quest_core.decode.attention import AnswerAttention, Attention, DecodeAttention, page_budget
from quest_core.decode.decode_graph import (
    REPORT_HEADER_BYTES,
    StaticStep,
    StepGraphs,
    StepShape,
    read_shape,
    split_report_header,
    table_pages_for,
)
from quest_core.decode.read_trace import StepReads
from quest_core.decode.sampling import Sampler, read_token
from quest_core.decoder import Decoder


@dataclass(frozen=True)
class RoundShare:
    """A token's part of a round of speculative decoding, which gives several tokens.

    Args:
        step_s, kv_bytes: the round's seconds and bytes of the cache read, divided by its tokens.
        drafted: tokens drafted in the round, if this is its first token; else 0.
        accepted: how many of these were what dense decoding gives.
    """

    step_s: float
    kv_bytes: int
    drafted: int
    accepted: int


@dataclass(frozen=True)
class FinishedStep:
    """A step whose token is on the host.

    Args:
        token_id: drawn by it.
        logits: float32 [vocab_size] on the device, from which it was drawn.
        reads: which pages; None with dense attention, and where they are not traced.
        share: its part of a round of speculative decoding; None for other steps.
    """

    token_id: int
    logits: torch.Tensor
    reads: StepReads | None
    share: RoundShare | None = None


def append_token(decoder: Decoder, cache: SequenceCache, token_id: torch.Tensor, attention: Attention) -> torch.Tensor:
    """Run one token through the model and count it in the cache.

    Args:
        token_id: int64 [1] on the device.

    Returns:
        float32 [vocab_size], the logits after it.

    Raises:
        PoolExhausted: if the page pool is full; nothing has changed then.
    """
    cache.reserve(1)
    logits = decoder.decode(token_id, cache.pool, cache.view(1), attention)
    cache.advance(1)
    return logits


class EagerSteps:
    """Steps that run at once, over tensors as long as the sequence: on the CPU, and for what is compared with Quest.

    Args:
        decoder: the model.
        cache: of the sequence.
        attention: of all steps.
        traced: whether what it reads is brought to the host.
        sampler: draws the tokens.
    """

    looks_ahead = False
    launched = 0

    def __init__(
        self, decoder: Decoder, cache: SequenceCache, attention: AnswerAttention, traced: bool, sampler: Sampler
    ) -> None:
        self._decoder = decoder
        self._cache = cache
        self._attention = attention
        self._traced = traced
        self._sampler = sampler
        self._token: torch.Tensor | None = None

    def begin(self, logits: torch.Tensor) -> int:
        """Draw the answer's first token from the logits after the prompt."""
        self._token = self._sampler.draw(logits)
        return self._sampler.read(self._token)

    def launch(self) -> None:
        """Nothing runs before `finish`."""

    def finish(self) -> FinishedStep:
        """Feed the last token and draw the next.

        Raises:
            NotANumberError: if there is nothing to draw it from.
        """
        logits = append_token(self._decoder, self._cache, self._token, self._attention)
        self._token = self._sampler.draw(logits)
        reads = self._attention.finish_step(self._cache.num_pages) if self._traced else None
        return FinishedStep(self._sampler.read(self._token), logits, reads)


class StaticSteps:
    """Steps over the buffers of `StepGraphs`; up to two may be launched before the first is finished.

    Args:
        graphs: shared by all sessions.
        cache: of the sequence.
        attention: of all steps: what each is to read; the steps themselves attend with their own.
        traced: whether what they read is brought to the host.
        sampler: draws the first token; its parameters and chance serve the others.
    """

    looks_ahead = True

    def __init__(
        self, graphs: StepGraphs, cache: SequenceCache, attention: DecodeAttention, traced: bool, sampler: Sampler
    ) -> None:
        self._graphs = graphs
        self._cache = cache
        self._attention = attention
        self._traced = traced
        quest, page_size = attention.quest, cache.pool.page_size
        kinds = ("dense", "quest") if quest.selects else ("dense",)
        self._read_shapes = {each: read_shape(replace(quest, attention=each), page_size) for each in kinds}
        # Only steps that select ask for it.
        self._budget = page_budget(self._read_shapes["quest"], page_size) if quest.selects else None
        self._sampler = sampler
        self._token_ids: list[int] = []  # the answer's, as far as they have reached the host
        self._in_flight: deque[_InFlightStep] = deque()  # launched, not finished
        self._table_version = -1

    @property
    def launched(self) -> int:
        """Steps launched and not finished."""
        return len(self._in_flight)

    def begin(self, logits: torch.Tensor) -> int:
        """Draw the answer's first token from the logits after the prompt."""
        self._token_ids.append(self._sampler.read(self._sampler.draw(logits)))
        return self._token_ids[0]

    @torch.inference_mode()
    def launch(self) -> None:
        """Launch the step after those launched before; the host need not know their tokens.

        Raises:
            PoolExhausted: if the page pool is full; nothing has been launched then.
        """
        cache, buffers, sampler = self._cache, self._graphs.buffers, self._sampler
        cache.reserve(len(self._in_flight) + 1)
        num_pages = -(-(cache.length_tokens + len(self._in_flight) + 1) // cache.pool.page_size)
        table_pages = table_pages_for(num_pages, buffers.window_pages)
        # A captured step knows no length: here alone it is known whether the step had better read everything.
        quest = self._read_shapes[self._attention.attention_for(num_pages, table_pages)]
        shape = StepShape(quest, table_pages, sampler.kind, self._traced)
        step = self._graphs.find(shape)
        if step is None:
            self._take_buffers()
            step = self._graphs.prepare(shape)
        if self._graphs.owner is not self:
            self._take_buffers()
        elif self._table_version != cache.table_version:
            self._copy_page_table()
        buffers.sampling.draw_noise(sampler.kind, sampler.generator)
        step.replay()
        self._in_flight.append(_InFlightStep(self._graphs, step, num_pages))

    def finish(self) -> FinishedStep:
        """Wait for the token of the step launched first, and count the token that it was fed.

        Raises:
            NotANumberError: if there was nothing to draw it from.
        """
        self._read_tokens(1)
        in_flight = self._in_flight.popleft()
        self._cache.advance(1)
        return FinishedStep(in_flight.token_id(), in_flight.logits, self._describe(in_flight))

    def _take_buffers(self) -> None:
        """Write this answer's state to the buffers, after another's has run on them."""
        self._read_tokens(len(self._in_flight))
        buffers = self._graphs.buffers
        buffers.token_id.fill_(self._token_ids[-1])
        buffers.length_tokens.fill_(self._cache.length_tokens + len(self._in_flight) + 1)
        buffers.sampling.set(self._sampler.config, self._token_ids)
        self._copy_page_table()
        self._graphs.owner = self

    def _copy_page_table(self) -> None:
        self._graphs.buffers.page_table.copy_(self._cache.whole_page_table)
        self._table_version = self._cache.table_version

    def _read_tokens(self, count: int) -> None:
        """Wait for the tokens of the first `count` steps in flight."""
        for in_flight in list(self._in_flight)[:count]:
            if not in_flight.was_read:
                in_flight.was_read = True
                self._token_ids.append(in_flight.token_id())

    def _describe(self, in_flight: _InFlightStep) -> StepReads | None:
        if not self._traced:
            return None
        step, trace = in_flight.step, self._attention.trace
        if not step.traced_layers:
            return trace.describe(in_flight.num_pages)
        # The step itself knows no length: the table it scores may be longer than what is read whole.
        reads_all = self._budget.reads_all(in_flight.num_pages)
        missed_mass = None if reads_all or not step.knows_missed_mass else in_flight.missed_mass()
        return trace.describe(in_flight.num_pages, step.traced_layers, in_flight.page_reads(), missed_mass)


class _InFlightStep:
    """One step between its launch and its end: a copy of its report on the way to the host."""

    def __init__(self, graphs: StepGraphs, step: StaticStep, num_pages: int) -> None:
        buffers, self.step = graphs.buffers, step
        self.num_pages = num_pages
        self.was_read = False
        # The buffer is the next step's.
        self.logits = buffers.logits.clone()
        report = buffers.report[: self.step.report_bytes]
        on_gpu = report.device.type == "cuda"
        self._report = torch.empty(len(report), dtype=torch.uint8, pin_memory=on_gpu)
        self._report.copy_(report, non_blocking=True)
        self._arrived = torch.cuda.Event() if on_gpu else None
        if self._arrived is not None:
            self._arrived.record()

    def token_id(self) -> int:
        token_id, _, highest = split_report_header(self._read())
        return read_token(token_id, highest)

    def missed_mass(self) -> float:
        return float(split_report_header(self._read())[1])

    def page_reads(self) -> np.ndarray:
        """uint8 [traced layers, table_pages]."""
        counts = self._read()[REPORT_HEADER_BYTES:].numpy()
        return counts.reshape(len(self.step.traced_layers), self.step.shape.table_pages)

    def _read(self) -> torch.Tensor:
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._report
