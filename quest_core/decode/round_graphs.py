"""The steps of a round of speculative decoding over static buffers: drafts and verifications, on a GPU as CUDA graphs.

As in `decode_graph`, everything which differs from round to round lies in buffers, and graphs are made for what changes
launches. A verification is captured for a few numbers of rows, so that a round's length is one of these. Knows nothing
of sessions, nor of how long a round should be.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch

from kernels.contract import SequenceView
from quest_core.cache.paged_kv_cache import PagePool
from quest_core.config import QuestConfig
from quest_core.decode.decode_graph import make_room
from quest_core.decode.draft_length import RoundCosts
from quest_core.decode.round_buffers import MOST_ROWS, RoundBuffers
from quest_core.decode.sampling import SamplingKind, SamplingTensors, draw_token
from quest_core.decode.static_draft_attention import DraftPages, StaticDraftAttention
from quest_core.decoder import Decoder

# Of a verification, the token that a round begins with and its drafts. One row is a dense step.
ROW_COUNTS = (1, 2, 4, MOST_ROWS)
# A round has three: its first draft, the others, and the verification.
MAX_ROUND_GRAPHS = 12
# Of so many answers for which rounds do not pay, one finds out whether that is still so.
MEASURED_AGAIN = 16


@dataclass(frozen=True)
class DraftShape:
    """What decides a draft's launches.

    Args:
        quest: what is read, as `decode_graph.read_shape` gives it.
        table_pages, sampling: as in `decode_graph.StepShape`.
        selects: whether it is the first of its round, which selects pages.
    """

    quest: QuestConfig
    table_pages: int
    sampling: SamplingKind
    selects: bool


@dataclass(frozen=True)
class VerificationShape:
    """What decides a verification's launches.

    Args:
        table_pages, sampling: as in `decode_graph.StepShape`.
        rows: tokens that are verified.
    """

    table_pages: int
    sampling: SamplingKind
    rows: int


class StaticDraft:
    """One draft over the buffers: feed the newest token of the round, draw the next, count up.

    Args:
        shape: of the draft.
        decoder: the model.
        pool: of the sequences' pages.
        buffers: of the round.
        pages: that the drafts of the round read.
    """

    def __init__(
        self, shape: DraftShape, decoder: Decoder, pool: PagePool, buffers: RoundBuffers, pages: DraftPages
    ) -> None:
        self._shape = shape
        self._decoder = decoder
        self._pool = pool
        self._buffers = buffers
        self._sequence = SequenceView(buffers.page_table[: shape.table_pages], buffers.length_tokens)
        self._attention = StaticDraftAttention(
            decoder.kernels, decoder.config.softmax_scale, shape.quest.dense_layers, pages, shape.selects
        )

    @torch.inference_mode()
    def __call__(self) -> None:
        buffers, kind = self._buffers, self._shape.sampling
        fed = buffers.token_ids.index_select(0, buffers.drafts)
        self._attention.begin(self._sequence)
        logits = self._decoder.decode(fed, self._pool, self._sequence, self._attention)
        self._attention.finish(self._sequence)
        if not kind.greedy:
            buffers.drafting.noise.copy_(buffers.noise.index_select(0, buffers.drafts)[0])
        if kind.penalised and self._shape.selects:
            buffers.drafting.drawn.copy_(buffers.sampling.drawn)
        drafted = draw_token(logits, fed, kind, buffers.drafting)
        buffers.drafts.add_(1)
        buffers.token_ids.index_copy_(0, buffers.drafts, drafted)
        buffers.length_tokens.add_(1)


class StaticVerification:
    """One dense pass over the tokens of the round, and what dense decoding draws after each; may be run again.

    Args:
        shape: of the verification.
        decoder: the model.
        pool: of the sequences' pages.
        buffers: of the round.
    """

    def __init__(self, shape: VerificationShape, decoder: Decoder, pool: PagePool, buffers: RoundBuffers) -> None:
        self._shape = shape
        self._decoder = decoder
        self._pool = pool
        self._buffers = buffers
        self._sequence = SequenceView(buffers.page_table[: shape.table_pages], buffers.length_tokens)

    @torch.inference_mode()
    def __call__(self) -> None:
        buffers, kind, rows = self._buffers, self._shape.sampling, self._shape.rows
        logits = self._decoder.verify(buffers.token_ids[:rows], self._pool, self._sequence)
        buffers.logits[:rows].copy_(logits)
        before: SamplingTensors = buffers.sampling
        for row, of_row in enumerate(buffers.verifying[:rows]):
            if kind.penalised:
                of_row.drawn.copy_(before.drawn)
            fed, before = buffers.token_ids[row : row + 1], of_row
            buffers.drawn_ids[row : row + 1].copy_(draw_token(logits[row], fed, kind, of_row))


class RoundGraphs:
    """The drafts and verifications in use, by shape, and the buffers they share; the one used longest ago goes first.

    Args:
        decoder: the model.
        pool: of the sequences' pages.
        prepare: makes a step replayable; may run it.

    Attributes:
        owner: whose state the buffers hold, any object; None if nobody's.
    """

    def __init__(
        self, decoder: Decoder, pool: PagePool, prepare: Callable[[Callable[[], None]], Callable[[], None]]
    ) -> None:
        self.buffers = RoundBuffers(decoder.config, pool.page_size, pool.device)
        self.owner: object | None = None
        self._decoder = decoder
        self._pool = pool
        self._prepare = prepare
        self._prepared: OrderedDict[DraftShape | VerificationShape, Callable[[], None]] = OrderedDict()
        self._pages: dict[QuestConfig, DraftPages] = {}
        self._costs: dict[tuple[QuestConfig, int], RoundCosts] = {}
        self._answers_without: dict[tuple[QuestConfig, int], int] = {}

    def costs_for_answer(self, quest: QuestConfig, table_pages: int) -> RoundCosts | None:
        """What rounds take with these settings over tables of this length, as far as any has run.

        Returns:
            None for an answer that is better decoded without rounds: they would not pay if all drafts were accepted. In
            case that was measured badly, one of `MEASURED_AGAIN` such answers begins anew.
        """
        key = quest, table_pages
        costs = self._costs.setdefault(key, RoundCosts())
        if not costs.known or costs.may_pay(rows - 1 for rows in ROW_COUNTS[1:]):
            return costs
        self._answers_without[key] = (self._answers_without.get(key, 0) + 1) % MEASURED_AGAIN
        if self._answers_without[key]:
            return None
        self._costs[key] = RoundCosts()
        return self._costs[key]

    def find(self, shape: DraftShape | VerificationShape) -> Callable[[], None] | None:
        """What runs it, if it has been prepared and is still kept."""
        if shape in self._prepared:
            self._prepared.move_to_end(shape)
        return self._prepared.get(shape)

    def prepare(self, shape: DraftShape | VerificationShape) -> None:
        """Prepare one; the buffers must hold a round in which it is due, may run, and are nobody's afterwards."""
        make_room(self._prepared, MAX_ROUND_GRAPHS, self._pool.device)
        self.owner = None
        if isinstance(shape, VerificationShape):
            step = StaticVerification(shape, self._decoder, self._pool, self.buffers)
        else:
            step = StaticDraft(shape, self._decoder, self._pool, self.buffers, self._pages_for(shape.quest))
        self._prepared[shape] = self._prepare(step)

    def _pages_for(self, quest: QuestConfig) -> DraftPages:
        """The list that all drafts of rounds with these settings share."""
        drafts = (shape for shape in self._prepared if isinstance(shape, DraftShape))
        kept = {quest, *(shape.quest for shape in drafts)}
        self._pages = {each: pages for each, pages in self._pages.items() if each in kept}
        if quest not in self._pages:
            model = self._decoder.config
            self._pages[quest] = DraftPages(quest, self._pool.layout, model.num_layers, self._pool.device)
        return self._pages[quest]
