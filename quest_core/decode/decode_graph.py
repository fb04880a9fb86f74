"""One decode step, sampling included, over static buffers; on a GPU captured in a CUDA graph.

A step of many layers is bound by its launches; a graph makes them one. It replays the same launches on the same
addresses, so that everything which differs from step to step lies in buffers: the token, lengths, page table, sampling
parameters. Graphs are made for what changes launches (`StepShape`), never for a request. Knows nothing of sessions.
"""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from kernels.contract import SequenceView
from quest_core.cache.paged_kv_cache import PagePool
from quest_core.config import ModelConfig, QuestConfig
from quest_core.decode.attention import DecodeAttention
from quest_core.decode.read_costs import costs_for
from quest_core.decode.sampling import SamplingKind, SamplingTensors, draw_token
from quest_core.decoder import Decoder

MAX_GRAPHS = 8
# Grids and the scratch of a step grow with the table, so that a short context should not pay for the whole window.
MIN_TABLE_PAGES = 1024
# The report begins with the token (int64), the missed mass and the highest number of the draw (float32), and goes on
# at a multiple of 16 bytes.
REPORT_HEADER_BYTES = 16


@dataclass(frozen=True)
class StepShape:
    """What decides a step's launches.

    Args:
        quest: what is read, dense or Quest; the same for all settings that read the same, see `read_shape`.
        table_pages: how many elements of the page table a step looks at, including those beyond the context.
        sampling: how the token is drawn.
        trace_reads: count which pages are read.
    """

    quest: QuestConfig
    table_pages: int
    sampling: SamplingKind
    trace_reads: bool


def read_shape(quest: QuestConfig, page_size: int) -> QuestConfig:
    """`quest` with whole pages as its budget, and without settings that change nothing.

    Raises:
        ValueError: if the budget cannot hold the pages that are always read.
    """
    if quest.attention != "quest":
        return QuestConfig(attention="dense")
    budget_pages = quest.budget_pages(page_size)
    return QuestConfig("quest", budget_pages * page_size, quest.dense_layers, quest.sink_pages, quest.recent_pages)


def table_pages_for(num_pages: int, window_pages: int) -> int:
    """Entries to look at for `num_pages` pages: powers of two, so that few graphs serve a growing context."""
    return min(max(MIN_TABLE_PAGES, 1 << (num_pages - 1).bit_length()), window_pages)


class StepBuffers:
    """What a step reads and writes; one set for all sessions, which take turns.

    Attributes:
        token_id: int64 [1]; the step replaces the token it is fed by the one it draws.
        missed_mass: float32 [].
        length_tokens: int32 [1], as in `SequenceView`; the step counts it up.
        page_table: int32 [window_pages].
        sampling: parameters and noise.
        logits: float32 [vocab_size], of the last step.
        report: uint8; token, missed mass, the draw's highest number and page counts in one piece, to reach the host in
            one copy.
    """

    def __init__(self, model: ModelConfig, page_size: int, device: torch.device) -> None:
        self.window_pages = -(-model.context_tokens // page_size)
        report_bytes = REPORT_HEADER_BYTES + model.num_layers * self.window_pages
        self.report = torch.zeros(report_bytes, dtype=torch.uint8, device=device)
        self.token_id, self.missed_mass, highest = split_report_header(self.report)
        self.length_tokens = torch.zeros(1, dtype=torch.int32, device=device)
        self.page_table = torch.zeros(self.window_pages, dtype=torch.int32, device=device)
        self.sampling = SamplingTensors(model.vocab_size, device, highest)
        self.logits = torch.zeros(model.vocab_size, device=device)


def split_report_header(report: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Views of a report: the token id, int64 [1], the missed mass and the draw's highest number, float32 []."""
    return report[:8].view(torch.int64), report[8:12].view(torch.float32)[0], report[12:16].view(torch.float32)[0]


class StaticStep:
    """One step of one shape over the buffers: feed the token, draw the next, count up.

    To run it again from the same lengths and token changes nothing.

    Attributes:
        replay: runs it again, as a graph where it has been captured.
        traced_layers: whose page counts the report holds, in order; known once the step has run.
        knows_missed_mass: whether the report holds one.
    """

    def __init__(self, shape: StepShape, decoder: Decoder, pool: PagePool, buffers: StepBuffers) -> None:
        self.shape = shape
        self.replay: Callable[[], None] = self
        self.traced_layers: list[int] = []
        self.knows_missed_mass = False
        self._decoder = decoder
        self._buffers = buffers
        self._pool = pool
        self._sequence = SequenceView(buffers.page_table[: shape.table_pages], buffers.length_tokens)
        model = decoder.config
        costs = costs_for(pool.device.type, model.num_query_heads // model.num_kv_heads)
        self._attention = DecodeAttention(
            shape.quest, pool.layout, model.num_layers, model.softmax_scale, decoder.kernels, costs
        )

    @property
    def report_bytes(self) -> int:
        return REPORT_HEADER_BYTES + len(self.traced_layers) * self.shape.table_pages

    @torch.inference_mode()
    def __call__(self) -> None:
        buffers, shape = self._buffers, self.shape
        logits = self._decoder.decode(buffers.token_id, self._pool, self._sequence, self._attention)
        token = draw_token(logits, buffers.token_id, shape.sampling, buffers.sampling)
        buffers.logits.copy_(logits)
        if shape.trace_reads and (counts := self._attention.trace.count_pages(shape.table_pages)) is not None:
            self.traced_layers = counts.layers
            buffers.report[REPORT_HEADER_BYTES : self.report_bytes].copy_(counts.page_reads.flatten())
            if counts.missed_mass is not None:
                self.knows_missed_mass = True
                buffers.missed_mass.copy_(counts.missed_mass)
        buffers.token_id.copy_(token)
        buffers.length_tokens.add_(1)


class GraphCapture:
    """Captures steps on a GPU; their scratch is shared, since they never run at the same time."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._memory = torch.cuda.graph_pool_handle()

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        """Run `step` once, so that its kernels are compiled, and capture it; returns what replays it."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            step()
        current.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile, if only to free memory.
        captured = torch.cuda.graph(graph, pool=self._memory, stream=self._stream, capture_error_mode="thread_local")
        with garbage_kept(), captured:
            step()
        return graph.replay


@contextmanager
def garbage_kept() -> Iterator[None]:
    """Collect no garbage meanwhile: a graph or memory that is freed in the middle of a capture breaks it off."""
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()


def run_eagerly(step: Callable[[], None]) -> Callable[[], None]:
    """Takes the place of a `GraphCapture`: the same step without a graph."""
    return step


def make_room(prepared: OrderedDict[Any, Any], most: int, device: torch.device) -> None:
    """Let the first of `most` prepared steps go, so that another can be kept."""
    if len(prepared) == most:
        if device.type == "cuda":
            # Its graph may still run.
            torch.cuda.synchronize(device)
        prepared.popitem(last=False)


class StepGraphs:
    """The steps in use, by shape, and the buffers they share; the one used longest ago goes first.

    Args:
        decoder: the model.
        pool: of the sequences' pages.
        prepare: makes a step replayable; may run it.

    Attributes:
        owner: whose state the buffers hold, any object; None if nobody's.
    """

    def __init__(
        self,
        decoder: Decoder,
        pool: PagePool,
        prepare: Callable[[Callable[[], None]], Callable[[], None]],
    ) -> None:
        self.buffers = StepBuffers(decoder.config, pool.page_size, pool.device)
        self.owner: object | None = None
        self._decoder = decoder
        self._pool = pool
        self._prepare = prepare
        self._prepared: OrderedDict[StepShape, StaticStep] = OrderedDict()

    def find(self, shape: StepShape) -> StaticStep | None:
        """The step, if it has been prepared and is still kept."""
        if shape in self._prepared:
            self._prepared.move_to_end(shape)
        return self._prepared.get(shape)

    def prepare(self, shape: StepShape) -> StaticStep:
        """Prepare a step; the buffers must hold one that is due, which may run, and are nobody's afterwards."""
        make_room(self._prepared, MAX_GRAPHS, self._pool.device)
        step = StaticStep(shape, self._decoder, self._pool, self.buffers)
        self.owner = None
        step.replay = self._prepare(step)
        self._prepared[shape] = step
        return step
