"""One token sequence as its users see it: prefill, decode, fork, truncate.

A session remembers which token ids its cache holds, so that nothing is computed twice. It is used only on the engine's
thread, inside a job. Knows nothing of text or of other sessions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

import torch

from quest_core.cache.cache_layout import dense_bytes
from quest_core.cache.paged_kv_cache import PoolExhausted, SequenceCache
from quest_core.cache.prefixes import Prefix
from quest_core.config import QuestConfig, SamplingConfig
from quest_core.decode.answer_steps import EagerSteps, StaticSteps, append_token
from quest_core.decode.attention import AnswerAttention, Attention, AttentionMethod, DecodeAttention, QuestMethod
from quest_core.decode.decode_graph import table_pages_for
from quest_core.decode.draft_attention import DraftAttention
from quest_core.decode.read_trace import StepReads
from quest_core.decode.sampling import NotANumberError, Sampler
from quest_core.decode.span_attention import SpanAttention
from quest_core.decode.speculation import SpeculativeSteps
from quest_core.decode.static_speculation import StaticSpeculativeSteps, draft_length_for
from quest_core.decode.verified_steps import VerifiedSteps
from quest_core.jobs import Cancellation
from quest_core.prefill.prefill import Prefill
from quest_core.prefill.prefix_sharing import PrefixSharing
from quest_core.prefill.token_sequence import TokenSequence
from quest_core.rope_variant import RopeVariant
from quest_core.session_events import DecodeStep, FinishReason, PrefillProgress, ScoredToken
from quest_core.session_registry import SessionRegistry

# Between two looks at the time; long enough to use the device well.
_WATCHED_CHUNK_TOKENS = 32


class Session:
    """A sequence of tokens and its part of the KV cache.

    Args:
        rope_variants: the model for sequences of each length, shortest first; the last is for the whole window.
        cache: empty.
        prefill_chunk_tokens: tokens between two chances to cancel.
        registry: told of every use; may empty the session while it is idle.
        method: how decode steps attend.
        sharing: of prefixes with other sessions and with the disk; None shares nothing.
    """

    def __init__(
        self,
        rope_variants: Sequence[RopeVariant],
        cache: SequenceCache,
        prefill_chunk_tokens: int,
        registry: SessionRegistry,
        method: AttentionMethod,
        sharing: PrefixSharing | None = None,
    ) -> None:
        self.prefill_chunk_tokens = prefill_chunk_tokens
        self._rope_variants = rope_variants
        self._registry = registry
        self._method = method
        self._sharing = sharing
        self._sequence = TokenSequence(rope_variants[0], cache)
        self._prefill: Prefill | None = None  # the last that was begun

    @property
    def tokens(self) -> list[int]:
        """Those that the cache holds."""
        return self._sequence.tokens

    @property
    def context_tokens(self) -> int:
        return len(self._sequence)

    @property
    def cache(self) -> SequenceCache:
        return self._sequence.cache

    @property
    def logits(self) -> torch.Tensor | None:
        """float32 [vocab_size] after the last token; None where they are not known."""
        return self._sequence.logits

    @property
    def max_tokens(self) -> int:
        """How long the sequence may grow by decoding; a prefill with more room stretches it further."""
        return min(self._sequence.variant.max_tokens, self.cache.max_tokens)

    def prefill(
        self,
        token_ids: list[int],
        cancellation: Cancellation,
        room_tokens: int = 0,
        prefixes: Sequence[Prefix] = (),
    ) -> Iterator[PrefillProgress]:
        """Bring the cache to hold exactly `token_ids`, keeping the longest common prefix; see `Prefill`.

        Yields the progress at the start and after each chunk. When cancelled it returns early; what was computed stays.
        So it does when another prefill of this session began while its job was paused. Positions are stretched no
        further than the tokens and the room need.

        Args:
            token_ids: the whole sequence.
            cancellation: asked between chunks.
            room_tokens: how many more are to be decoded; what does not fit the window is not counted.
            prefixes: the parts from the first token on that are worth keeping, for others and on the disk.

        Raises:
            ValueError: if the sequence is empty or longer than the window, or a prefix is empty or longer than it.
            PoolExhausted: if the page pool is full; what was computed stays.
        """
        if not token_ids:
            raise ValueError("there is nothing to prefill")
        if len(token_ids) > self.cache.max_tokens:
            raise ValueError(f"{len(token_ids)} tokens do not fit the window of {self.cache.max_tokens} tokens")
        self._registry.touch(self)
        variant = self._variant_for(len(token_ids) + room_tokens)
        prefill = Prefill(
            self._sequence, token_ids, prefixes, variant, self._sharing, self._method, self.prefill_chunk_tokens
        )
        self._prefill = prefill
        for progress in prefill.run(cancellation):
            yield progress
            if self._prefill is not prefill:
                return
            if not cancellation.requested:
                self._registry.touch(self)

    def _variant_for(self, length_tokens: int) -> RopeVariant:
        """The shortest that holds so many tokens; the longest, if none does."""
        return next(
            (variant for variant in self._rope_variants if length_tokens <= variant.max_tokens), self._rope_variants[-1]
        )

    def adopt_cache(self, token_ids: list[int], logits: torch.Tensor) -> None:
        """Count what the caller has written to the empty session's cache as `token_ids`, as if it had prefilled them.

        How far it will grow is not known, so positions are stretched as for the whole window.

        Args:
            token_ids: what the cache now holds.
            logits: float32 [vocab_size], after the last of them.

        Raises:
            ValueError: if the cache does not hold as many tokens.
        """
        self._sequence.adopt(token_ids, logits)
        self._sequence.variant = self._rope_variants[-1]
        self._registry.touch(self)

    def decode(
        self,
        quest: QuestConfig,
        sampling: SamplingConfig,
        cancellation: Cancellation,
        trace_reads: bool = True,
        look_ahead: bool = True,
    ) -> Iterator[DecodeStep]:
        """Draw tokens until a stop token, a limit, or cancellation.

        Args:
            trace_reads: bring the pages that each step read to the host; without, to measure what that costs.
            look_ahead: on a GPU, launch the next step before a token id is read, so that the device never waits;
                without, no step runs in the time of another session's.

        Raises:
            ValueError: before a prefill, or if the budget is smaller than what is always read.
            NotANumberError: if the logits are no numbers.
            PoolExhausted: if the page pool is full.
            RuntimeError: if the session was emptied while its job was paused.
        """
        steps = self._open_steps(quest, sampling, trace_reads and quest.selects)
        sequence = self._sequence
        token_id, arrived = -1, 0.0
        for step in range(sampling.max_new_tokens):
            if cancellation.requested:
                return
            start = arrived if steps.launched else time.perf_counter()
            reads = share = None
            if step == 0:
                token_id = steps.begin(sequence.logits)
            else:
                if not steps.launched:
                    steps.launch()
                last = step + 1 == sampling.max_new_tokens or len(sequence) + 1 == self.max_tokens
                if look_ahead and steps.looks_ahead and not last:
                    # Without a free page the token at hand still counts; launching again, when it is due, tells.
                    with suppress(PoolExhausted):
                        steps.launch()
                finished = steps.finish()
                sequence.append_decoded(token_id, finished.logits)
                token_id, reads, share = finished.token_id, finished.reads, finished.share
            arrived = time.perf_counter()
            finish_reason = self._finish_reason(step, token_id, sampling)
            bytes_read, bytes_dense = (0, 0) if step == 0 else self._kv_bytes(quest, reads)
            context_tokens = len(sequence)
            decoded = DecodeStep(
                step, token_id, arrived - start, context_tokens, bytes_read, bytes_dense, reads, finish_reason
            )
            if share is not None:
                decoded = replace(
                    decoded,
                    step_s=share.step_s,
                    kv_bytes_read=share.kv_bytes,
                    drafted=share.drafted,
                    accepted=share.accepted,
                )
            yield decoded
            if finish_reason:
                return
            if len(sequence) < context_tokens:
                raise RuntimeError("the session was emptied while its job was paused")
            self._registry.touch(self)

    def score(
        self,
        token_ids: list[int],
        quest: QuestConfig,
        cancellation: Cancellation,
        watch: Callable[[AnswerAttention], Attention] = lambda attention: attention,
    ) -> Iterator[ScoredToken]:
        """Feed `token_ids` one by one through decoding, as if they had been drawn.

        Args:
            token_ids: what to feed.
            quest: what each step reads.
            cancellation: asked before each token.
            watch: wraps the attention of all steps, for measurements.

        Raises:
            ValueError: before a prefill, if there is no room for so many tokens, or if the budget is smaller than what
                is always read.
            NotANumberError: if the logits are no numbers.
        """
        sequence = self._sequence
        if len(sequence) + len(token_ids) > self.max_tokens:
            raise ValueError(
                f"{len(token_ids)} tokens after {len(sequence)} do not fit the {self.max_tokens} tokens that the "
                "prefill made room for"
            )
        attention = self._begin_answer(quest)
        watched = watch(attention)
        for token_id in token_ids:
            if cancellation.requested:
                return
            log_probability = float(sequence.logits.log_softmax(dim=-1)[token_id])
            if math.isnan(log_probability):
                raise NotANumberError(log_probability)
            is_likeliest = int(sequence.logits.argmax()) == token_id
            decoder = sequence.variant.decoder
            fed = torch.tensor([token_id], device=decoder.device)
            sequence.append_decoded(token_id, append_token(decoder, self.cache, fed, watched))
            reads = attention.finish_step(self.cache.num_pages) if quest.selects else None
            yield ScoredToken(log_probability, self._kv_bytes(quest, reads)[0], reads, is_likeliest)

    def reads_all(self, quest: QuestConfig) -> bool:
        """Whether the next decode step would read everything, as "dense" does, or "auto" at this length."""
        attention, graphs = self._method.begin_answer(quest), self._sequence.variant.graphs
        pages = -(-(self.context_tokens + 1) // self.cache.pool.page_size)
        table_pages = pages if graphs is None else table_pages_for(pages, graphs.buffers.window_pages)
        return isinstance(attention, DecodeAttention) and attention.attention_for(pages, table_pages) == "dense"

    def watch_attention(
        self,
        before: list[int],
        token_ids: list[int],
        spans: Sequence[tuple[int, int]],
        cancellation: Cancellation,
        most_s: float,
    ) -> torch.Tensor | None:
        """Append tokens with dense attention, and tell how much of it each span of the context gets.

        To be asked of a fork, so that the session itself stays as it is.

        Args:
            before: tokens that come first and are not watched.
            token_ids: those that are.
            spans: see `SpanAttention`.
            cancellation: asked between chunks.
            most_s: no chunk but the first begins later.

        Returns:
            float32 [layers, tokens, spans] of those tokens that there was time for; None if it was cancelled.

        Raises:
            ValueError: if there is no room for so many tokens.
            PoolExhausted: if the page pool is full.
        """
        new_tokens = len(before) + len(token_ids)
        if self.context_tokens + new_tokens > self.max_tokens:
            raise ValueError(f"{new_tokens} tokens do not fit after {self.context_tokens} of {self.max_tokens}")
        if not token_ids or not spans:
            return None
        attention = SpanAttention(spans, self._sequence.variant.decoder.config.softmax_scale)
        end = time.perf_counter() + most_s
        if before:
            self._sequence.compute(before)
        watched = 0
        while watched < len(token_ids) and not cancellation.requested:
            if watched and time.perf_counter() > end:
                break
            chunk = token_ids[watched : watched + _WATCHED_CHUNK_TOKENS]
            self._sequence.compute(chunk, attention)
            watched += len(chunk)
        return attention.mass() if watched else None

    def _open_steps(
        self, quest: QuestConfig, sampling: SamplingConfig, traced: bool
    ) -> EagerSteps | StaticSteps | VerifiedSteps:
        attention = self._begin_answer(quest)
        decoder, graphs = self._sequence.variant.decoder, self._sequence.variant.graphs
        sampler = Sampler(sampling, decoder.config.vocab_size, decoder.device)
        exact = quest.attention == "exact" and isinstance(self._method, QuestMethod)
        if exact and (rounds := self._sequence.variant.rounds) is not None:
            if (length := draft_length_for(rounds, self.cache, quest)) is not None:
                return StaticSpeculativeSteps(rounds, decoder, self.cache, quest, sampler, self.max_tokens, length)
        if graphs is not None and isinstance(attention, DecodeAttention):
            return StaticSteps(graphs, self.cache, attention, traced, sampler)
        if exact:
            drafting = DraftAttention(self._method, replace(quest, attention="quest"))
            return SpeculativeSteps(decoder, self.cache, drafting, sampler, self.max_tokens)
        return EagerSteps(decoder, self.cache, attention, traced, sampler)

    def _begin_answer(self, quest: QuestConfig) -> AnswerAttention:
        self._sequence.require_logits()
        self._registry.touch(self)
        return self._method.begin_answer(quest)

    def _kv_bytes(self, quest: QuestConfig, reads: StepReads | None) -> tuple[int, int]:
        """Bytes that the last step read, 0 if it may have chosen pages and was not traced, and those of a dense one."""
        pool = self.cache.pool
        dense = len(pool.layers) * dense_bytes(pool.layout, -(-self.context_tokens // pool.page_size))
        if not quest.selects:
            return dense, dense
        return (0 if reads is None else reads.kv_bytes), dense

    def _finish_reason(self, step: int, token_id: int, sampling: SamplingConfig) -> FinishReason | None:
        if token_id in sampling.stop_token_ids:
            return "stop"
        if step + 1 == sampling.max_new_tokens:
            return "length"
        return "context" if self.context_tokens == self.max_tokens else None

    def fork(self) -> Session:
        """A second session with the same tokens; pages are shared until one of the two writes to them."""
        sequence = self._sequence.fork()
        other = Session(
            self._rope_variants,
            sequence.cache,
            self.prefill_chunk_tokens,
            self._registry,
            self._method.fork(),
            self._sharing,
        )
        other._sequence = sequence
        self._registry.touch(self)
        self._registry.touch(other)
        return other

    def truncate(self, length_tokens: int) -> None:
        """Forget all tokens from position `length_tokens` on."""
        if self._sequence.truncate(length_tokens):
            self._method.forget()

    def close(self) -> None:
        """Give the pages back; the session is empty afterwards and may be used again."""
        self.truncate(0)
        self._registry.forget(self)
