"""One prefill: bring a sequence to hold a prompt, with as little computed as can be.

What the sequence holds already stays; of the prompt's prefixes what others have computed, or an earlier run has written
to the disk, is taken over; the rest is computed chunk by chunk. Knows nothing of what a prompt is made of.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch

from quest_core.cache.prefixes import Prefix, Segment
from quest_core.decode.attention import AttentionMethod
from quest_core.jobs import Cancellation
from quest_core.prefill.prefix_sharing import PrefixSharing
from quest_core.prefill.token_sequence import TokenSequence
from quest_core.rope_variant import RopeVariant
from quest_core.session_events import PrefillProgress


class Prefill:
    """Brings `sequence` to hold exactly `token_ids`; what was computed stays when it is given up.

    Within prefixes chunks end where their segments do, so that the pages are the same wherever they come from; what the
    sequence holds that was computed otherwise is computed again. Keys are cached rotated, so that nothing is kept of a
    cache under another RoPE variant.

    Args:
        sequence: of the session.
        token_ids: the whole prompt.
        prefixes: the parts from the first token on that are worth sharing.
        variant: the model as the prompt and its answer need it.
        sharing: of prefixes with others; None shares nothing.
        method: how the session attends; may have to see each token.
        chunk_tokens: between two chances to give it up.

    Raises:
        ValueError: if a prefix is empty or longer than the prompt.
    """

    def __init__(
        self,
        sequence: TokenSequence,
        token_ids: list[int],
        prefixes: Sequence[Prefix],
        variant: RopeVariant,
        sharing: PrefixSharing | None,
        method: AttentionMethod,
        chunk_tokens: int,
    ) -> None:
        self._start = time.perf_counter()
        self._sequence = sequence
        self._token_ids = token_ids
        self._segments = sharing.plan(token_ids, prefixes, variant) if sharing is not None and prefixes else []
        self._sharing = sharing
        self._method = method
        self._chunk_tokens = chunk_tokens
        self._variant_changed = variant is not sequence.variant and len(sequence) > 0
        if variant is not sequence.variant:
            self._truncate(0)
            sequence.variant = variant
        own_segments, self._reused_tokens = self._plan_reuse()
        self._truncate(self._reused_tokens)
        self._restored_tokens = self._restored_bytes = 0
        if self._segments:
            sharing.note_use(self._segments, sequence.cache, own_segments)

    def run(self, cancellation: Cancellation) -> Iterator[PrefillProgress]:
        """Yields the progress at the start and after each chunk, or each part that came from the disk.

        While it is paused after one of these, tokens may be taken from the sequence; they are computed again.

        Raises:
            PoolExhausted: if the page pool is full.
        """
        begun = False
        while True:
            self._count_lost_tokens()
            ahead = self._segments_ahead()
            if not cancellation.requested and self._take_over(ahead):
                # What others hold costs no time, and is part of what the prefill begins with.
                if begun or self._restored_bytes:
                    begun = True
                    yield self._progress()
            elif not begun:
                begun = True
                yield self._progress()
            elif self._is_complete or cancellation.requested:
                if self._is_complete:
                    self._sequence.finish_prefill()
                return
            else:
                self._compute_chunk(ahead)
                yield self._progress()

    @property
    def _is_complete(self) -> bool:
        return len(self._sequence) == len(self._token_ids)

    def _plan_reuse(self) -> tuple[int, int]:
        """How many segments, and how many tokens, of what the sequence holds stay."""
        sequence, segments, length = self._sequence, self._segments, len(self._token_ids)
        reused = sequence.common_prefix(self._token_ids)
        own_segments = sequence.own_segments(segments, reused)
        if own_segments < len(segments):
            reused = segments[own_segments - 1].end if own_segments else 0
        ends_kept = bool(segments) and segments[-1].end == length
        if reused == length and (reused < len(sequence) or sequence.logits is None) and not ends_kept:
            reused -= 1  # the last token runs again for its logits
        if self._method.observes_prefill and reused < len(sequence):
            reused = 0
        return own_segments, reused

    def _count_lost_tokens(self) -> None:
        if len(self._sequence) < self._reused_tokens:  # they had to go while this was paused
            self._reused_tokens = self._restored_tokens = len(self._sequence)

    def _segments_ahead(self) -> list[Segment]:
        """Those that the sequence does not hold as a whole; none once it is complete."""
        position = len(self._sequence)
        return [] if self._is_complete else [segment for segment in self._segments if segment.end > position]

    def _take_over(self, ahead: Sequence[Segment]) -> bool:
        """Bring the sequence on by segments that others have computed; returns whether there were any."""
        sequence, position = self._sequence, len(self._sequence)
        if not ahead or ahead[0].start != position:
            return False
        taken = self._sharing.take(ahead, sequence.cache)
        if not taken.segments:
            return False
        segments = ahead[: taken.segments]
        end = segments[-1].end
        sequence.take_over(self._token_ids[position:end], segments)
        self._reused_tokens += end - position
        if taken.restored_bytes:
            self._restored_tokens += end - position
            self._restored_bytes += taken.restored_bytes
        return True

    def _compute_chunk(self, ahead: Sequence[Segment]) -> None:
        """Compute the next chunk, and keep it for others if it is a segment."""
        sequence, position = self._sequence, len(self._sequence)
        end = ahead[0].end if ahead else chunk_end(position, len(self._token_ids), self._chunk_tokens)
        observe = self._method.observe_prefill if self._method.observes_prefill else None
        sequence.compute(self._token_ids[position:end], observe)
        _wait_for(sequence.variant.decoder.device)
        number = len(self._segments) - len(ahead)
        if ahead and sequence.own_segments(self._segments, end) == number + 1:
            self._sharing.keep(ahead[0], sequence.cache)

    def _truncate(self, length_tokens: int) -> None:
        if self._sequence.truncate(length_tokens):
            self._method.forget()

    def _progress(self) -> PrefillProgress:
        return PrefillProgress(
            reused_tokens=self._reused_tokens,
            done_tokens=len(self._sequence),
            total_tokens=len(self._token_ids),
            elapsed_s=time.perf_counter() - self._start,
            stretch_factor=self._sequence.variant.factor,
            stretch_changed=self._variant_changed,
            restored_tokens=self._restored_tokens,
            restored_bytes=self._restored_bytes,
        )


def chunk_end(start: int, total: int, chunk_tokens: int) -> int:
    """Where the chunk from `start` on ends: chunks lie on a grid, so that the same lengths recur, for which cuDNN has
    its plans; what fits one chunk is not cut in two for that."""
    if total - start <= chunk_tokens:
        return total
    return (start // chunk_tokens + 1) * chunk_tokens


def _wait_for(device: torch.device) -> None:
    # So that progress tells what is done, not what is queued.
    if device.type == "cuda":
        torch.cuda.synchronize(device)
