"""One token sequence: prefill, decode, fork, truncate.

A session remembers which token ids its cache holds, so that nothing is computed twice. It is used only on the engine's
thread, inside a job. Knows nothing of text or of other sessions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Protocol

import torch

from quest_core.answer_steps import EagerSteps, StaticSteps, append_token
from quest_core.attention import AnswerAttention, Attention, AttentionMethod, DecodeAttention
from quest_core.cache_layout import dense_bytes
from quest_core.config import QuestConfig, SamplingConfig
from quest_core.decoder import ObservePrefill
from quest_core.paged_kv_cache import PoolExhausted, SequenceCache
from quest_core.prefix_sharing import PrefixSharing
from quest_core.prefixes import Prefix, Segment
from quest_core.read_trace import StepReads
from quest_core.sampling import NotANumberError, Sampler
from quest_core.session_events import DecodeStep, FinishReason, PrefillProgress, ScoredToken
from quest_core.session_registry import SessionRegistry
from quest_core.span_attention import SpanAttention
from quest_core.stretch import Stretch

# Between two looks at the time; long enough to use the device well.
_WATCHED_CHUNK_TOKENS = 32


class Cancellation(Protocol):
    """Tells whether the caller still wants the result; asked between chunks and between tokens."""

    @property
    def requested(self) -> bool: ...


class Session:
    """A sequence of tokens and its part of the KV cache.

    Args:
        stretches: the model for sequences of each length, shortest first; the last is for the whole window.
        cache: empty, or forked.
        prefill_chunk_tokens: tokens between two chances to cancel.
        registry: told of every use; may empty the session while it is idle.
        method: how decode steps attend.
        sharing: of prefixes with other sessions and with the disk; None shares nothing.
    """

    def __init__(
        self,
        stretches: Sequence[Stretch],
        cache: SequenceCache,
        prefill_chunk_tokens: int,
        registry: SessionRegistry,
        method: AttentionMethod,
        sharing: PrefixSharing | None = None,
    ) -> None:
        self.tokens: list[int] = []
        self._registry = registry
        self._method = method
        self._stretches = stretches
        self._take_stretch(stretches[0])
        self._cache = cache
        self._prefill_chunk_tokens = prefill_chunk_tokens
        self._sharing = sharing
        self._logits: torch.Tensor | None = None  # after the last of `tokens`, if they are known
        self._logits_due = False  # a prefill is finished, and nothing was computed for it
        self._chunk_ends: list[int] = []  # of the chunks that were computed one after the other from the first token on
        self._prefills = 0

    @property
    def context_tokens(self) -> int:
        return len(self.tokens)

    @property
    def cache(self) -> SequenceCache:
        return self._cache

    @property
    def max_tokens(self) -> int:
        """How long the sequence may grow by decoding; a prefill with more room stretches it further."""
        return min(self._stretch.max_tokens, self._cache.max_tokens)

    def prefill(
        self,
        token_ids: list[int],
        cancellation: Cancellation,
        room_tokens: int = 0,
        prefixes: Sequence[Prefix] = (),
    ) -> Iterator[PrefillProgress]:
        """Bring the cache to hold exactly `token_ids`, keeping the longest common prefix.

        Yields the progress at the start and after each chunk. When cancelled it returns early; what was computed stays.
        So it does when another prefill of this session began while its job was paused. Positions are stretched no
        further than the tokens and the room need. Keys are cached rotated, so nothing is kept of a cache that was
        stretched otherwise.

        Of `prefixes` what others have computed, or an earlier run has written, is taken over, and what is computed is
        kept for others, piece by piece. Within them chunks end where such pieces do, so that the pages are the same
        wherever they come from; what this session holds that was computed otherwise is computed again.

        Args:
            token_ids: the whole sequence.
            cancellation: asked between chunks.
            room_tokens: how many more are to be decoded; what does not fit the window is not counted.
            prefixes: the parts from the first token on that are worth keeping.

        Raises:
            ValueError: if the sequence is empty or longer than the window, or a prefix is empty or longer than it.
            PoolExhausted: if the page pool is full; what was computed stays.
        """
        if not token_ids:
            raise ValueError("there is nothing to prefill")
        if len(token_ids) > self._cache.max_tokens:
            raise ValueError(f"{len(token_ids)} tokens do not fit the window of {self._cache.max_tokens} tokens")
        self._registry.touch(self)
        start = time.perf_counter()
        stretch = self._stretch_for(len(token_ids) + room_tokens)
        segments: list[Segment] = []
        if self._sharing is not None and prefixes:
            segments = self._sharing.plan(token_ids, prefixes, stretch)
        self._prefills += 1
        this_prefill = self._prefills
        changed = stretch is not self._stretch and bool(self.tokens)
        if stretch is not self._stretch:
            self.truncate(0)
            self._take_stretch(stretch)
        reused = _common_prefix(self.tokens, token_ids)
        own_segments = self._own_segments(segments, reused)
        if own_segments < len(segments):
            reused = segments[own_segments - 1].end if own_segments else 0
        ends_kept = bool(segments) and segments[-1].end == len(token_ids)
        if reused == len(token_ids) and (reused < len(self.tokens) or self._logits is None) and not ends_kept:
            reused -= 1  # the last token runs again for its logits
        if self._method.observes_prefill and reused < len(self.tokens):
            reused = 0
        self.truncate(reused)
        restored_tokens = restored_bytes = 0
        if segments:
            self._sharing.note_use(segments, self._cache, own_segments)

        def progress() -> PrefillProgress:
            return PrefillProgress(
                reused, len(self.tokens), len(token_ids), time.perf_counter() - start, stretch.factor, changed,
                restored_tokens, restored_bytes,
            )  # fmt: skip

        begun = False
        observe = self._method.observe_prefill if self._method.observes_prefill else None
        while True:
            if self._prefills != this_prefill:
                return  # another has begun while this one was paused
            if not cancellation.requested:
                self._registry.touch(self)
            if len(self.tokens) < reused:  # they had to go while this was paused
                reused = restored_tokens = len(self.tokens)
            position = len(self.tokens)
            ahead = [segment for segment in segments if segment.end > position] if position < len(token_ids) else []
            if ahead and ahead[0].start == position and not cancellation.requested:
                taken = self._sharing.take(ahead, self._cache)
                if taken.segments:
                    end = ahead[taken.segments - 1].end
                    self._logits = None
                    self.tokens.extend(token_ids[position:end])
                    if position == (self._chunk_ends[-1] if self._chunk_ends else 0):
                        self._chunk_ends += [segment.end for segment in ahead[: taken.segments]]
                    reused += end - position
                    if taken.restored_bytes:
                        restored_tokens += end - position
                        restored_bytes += taken.restored_bytes
                    if begun or taken.restored_bytes:
                        begun = True
                        yield progress()
                    continue
            if not begun:
                begun = True
                yield progress()
                continue
            if position == len(token_ids) or cancellation.requested:
                self._logits_due = position == len(token_ids) and self._logits is None
                return
            end = ahead[0].end if ahead else _chunk_end(position, len(token_ids), self._prefill_chunk_tokens)
            self._compute(token_ids[position:end], observe)
            _wait_for(self._decoder.device)
            if ahead and self._own_segments(segments, end) == len(segments) - len(ahead) + 1:
                self._sharing.keep(ahead[0], self._cache)
            yield progress()

    def _compute(self, chunk: list[int], observe: ObservePrefill | None = None) -> None:
        position = len(self.tokens)
        ids = torch.tensor(chunk, dtype=torch.long, device=self._decoder.device)
        self._logits = None
        self._logits = self._decoder.prefill(ids, self._cache, observe)
        self.tokens.extend(chunk)
        if position == (self._chunk_ends[-1] if self._chunk_ends else 0):
            self._chunk_ends.append(position + len(chunk))

    def _own_segments(self, segments: Sequence[Segment], length_tokens: int) -> int:
        """How many of a prompt's segments the cache begins with, computed as a fresh prefill computes them."""
        count = 0
        for segment, end in zip(segments, self._chunk_ends, strict=False):
            if segment.end != end or end > length_tokens:
                break
            count += 1
        return count

    def _stretch_for(self, length_tokens: int) -> Stretch:
        """The shortest that holds so many tokens; the longest, if none does."""
        return next(
            (stretch for stretch in self._stretches if length_tokens <= stretch.max_tokens), self._stretches[-1]
        )

    def _take_stretch(self, stretch: Stretch) -> None:
        self._stretch = stretch
        self._decoder = stretch.decoder
        self._graphs = stretch.graphs

    def adopt_cache(self, token_ids: list[int], logits: torch.Tensor) -> None:
        """Count what the caller has written to the empty session's cache as `token_ids`, as if it had prefilled them.

        How far it will grow is not known, so positions are stretched as for the whole window.

        Args:
            token_ids: what the cache now holds.
            logits: float32 [vocab_size], after the last of them.

        Raises:
            ValueError: if the cache does not hold as many tokens.
        """
        if len(token_ids) != self._cache.length_tokens:
            raise ValueError(f"the cache holds {self._cache.length_tokens} tokens, not {len(token_ids)}")
        self._registry.touch(self)
        self._take_stretch(self._stretches[-1])
        self.tokens = list(token_ids)
        self._chunk_ends = []
        self._logits = logits

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
        steps = self._open_steps(quest, sampling, trace_reads and quest.attention == "quest")
        token_id, arrived = -1, 0.0
        for step in range(sampling.max_new_tokens):
            if cancellation.requested:
                return
            start = arrived if steps.launched else time.perf_counter()
            reads = None
            if step == 0:
                token_id = steps.begin(self._logits)
            else:
                if not steps.launched:
                    steps.launch()
                last = step + 1 == sampling.max_new_tokens or len(self.tokens) + 1 == self.max_tokens
                if look_ahead and steps.looks_ahead and not last:
                    # Without a free page the token at hand still counts; launching again, when it is due, tells.
                    with suppress(PoolExhausted):
                        steps.launch()
                finished = steps.finish()
                self.tokens.append(token_id)
                self._logits = finished.logits
                token_id, reads = finished.token_id, finished.reads
            arrived = time.perf_counter()
            finish_reason = self._finish_reason(step, token_id, sampling)
            bytes_read, bytes_dense = (0, 0) if step == 0 else self._kv_bytes(quest, reads)
            context_tokens = len(self.tokens)
            yield DecodeStep(
                step,
                token_id,
                arrived - start,
                context_tokens,
                bytes_read,
                bytes_dense,
                reads,
                finish_reason,
            )
            if finish_reason:
                return
            if len(self.tokens) < context_tokens:
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
        if len(self.tokens) + len(token_ids) > self.max_tokens:
            raise ValueError(
                f"{len(token_ids)} tokens after {len(self.tokens)} do not fit the {self.max_tokens} tokens that the "
                "prefill made room for"
            )
        attention = self._begin_answer(quest)
        watched = watch(attention)
        for token_id in token_ids:
            if cancellation.requested:
                return
            log_probability = float(self._logits.log_softmax(dim=-1)[token_id])
            if math.isnan(log_probability):
                raise NotANumberError(log_probability)
            is_likeliest = int(self._logits.argmax()) == token_id
            fed = torch.tensor([token_id], device=self._decoder.device)
            self._logits = append_token(self._decoder, self._cache, fed, watched)
            self.tokens.append(token_id)
            reads = attention.finish_step(self._cache.num_pages) if quest.attention == "quest" else None
            yield ScoredToken(log_probability, self._kv_bytes(quest, reads)[0], reads, is_likeliest)

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
        if len(self.tokens) + new_tokens > self.max_tokens:
            raise ValueError(f"{new_tokens} tokens do not fit after {len(self.tokens)} of {self.max_tokens}")
        if not token_ids or not spans:
            return None
        attention = SpanAttention(spans, self._decoder.config.softmax_scale)
        end = time.perf_counter() + most_s
        if before:
            self._compute(before)
        watched = 0
        while watched < len(token_ids) and not cancellation.requested:
            if watched and time.perf_counter() > end:
                break
            chunk = token_ids[watched : watched + _WATCHED_CHUNK_TOKENS]
            self._compute(chunk, attention)
            watched += len(chunk)
        return attention.shares() if watched else None

    def _open_steps(self, quest: QuestConfig, sampling: SamplingConfig, traced: bool) -> EagerSteps | StaticSteps:
        attention = self._begin_answer(quest)
        sampler = Sampler(sampling, self._decoder.config.vocab_size, self._decoder.device)
        if self._graphs is not None and isinstance(attention, DecodeAttention):
            return StaticSteps(self._graphs, self._cache, quest, attention.trace if traced else None, sampler)
        return EagerSteps(self._decoder, self._cache, attention, traced, sampler)

    def _begin_answer(self, quest: QuestConfig) -> AnswerAttention:
        if self._logits is None and self._logits_due:
            last = self.tokens[-1]
            self.truncate(len(self.tokens) - 1)
            self._compute([last])
        if self._logits is None:
            raise ValueError("decode needs a finished prefill")
        self._registry.touch(self)
        return self._method.begin_answer(quest)

    def _kv_bytes(self, quest: QuestConfig, reads: StepReads | None) -> tuple[int, int]:
        """Bytes that the last step read, 0 if it was Quest's and not traced, and that a dense one would have read."""
        pool = self._cache.pool
        pages = -(-len(self.tokens) // pool.page_size)
        dense = len(pool.layers) * dense_bytes(pool.layout, pages)
        if quest.attention == "dense":
            return dense, dense
        return (0 if reads is None else reads.kv_bytes), dense

    def _finish_reason(self, step: int, token_id: int, sampling: SamplingConfig) -> FinishReason | None:
        if token_id in sampling.stop_token_ids:
            return "stop"
        if step + 1 == sampling.max_new_tokens:
            return "length"
        return "context" if len(self.tokens) == self.max_tokens else None

    def fork(self) -> Session:
        """A second session with the same tokens; pages are shared until one of the two writes to them."""
        method = self._method.fork()
        other = Session(
            self._stretches, self._cache.fork(), self._prefill_chunk_tokens, self._registry, method, self._sharing
        )
        other._take_stretch(self._stretch)
        other._graphs = self._graphs
        self._registry.touch(self)
        self._registry.touch(other)
        other.tokens = list(self.tokens)
        other._chunk_ends = list(self._chunk_ends)
        other._logits = self._logits
        other._logits_due = self._logits_due
        return other

    def truncate(self, length_tokens: int) -> None:
        """Forget all tokens from position `length_tokens` on."""
        if length_tokens == len(self.tokens) == self._cache.length_tokens:
            return
        self._cache.truncate(length_tokens)
        del self.tokens[length_tokens:]
        while self._chunk_ends and self._chunk_ends[-1] > length_tokens:
            self._chunk_ends.pop()
        self._logits = None
        self._logits_due = False
        self._method.forget()

    def close(self) -> None:
        """Give the pages back; the session is empty afterwards and may be used again."""
        self.truncate(0)
        self._registry.forget(self)


def _common_prefix(left: list[int], right: list[int]) -> int:
    for index, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return index
    return min(len(left), len(right))


def _chunk_end(start: int, total: int, chunk_tokens: int) -> int:
    """Where the chunk from `start` on ends: chunks lie on a grid, so that the same lengths recur, for which cuDNN has
    its plans; what fits one chunk is not cut in two for that."""
    if total - start <= chunk_tokens:
        return total
    return (start // chunk_tokens + 1) * chunk_tokens


def _wait_for(device: torch.device) -> None:
    # So that progress tells what is done, not what is queued.
    if device.type == "cuda":
        torch.cuda.synchronize(device)
