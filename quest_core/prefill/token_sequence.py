"""The tokens of one session, and what the model has computed of them: their pages and the logits after the last.

Knows nothing of prompts, answers, or of other sequences.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from quest_core.cache.paged_kv_cache import SequenceCache
from quest_core.cache.prefixes import Segment
from quest_core.decoder import ObservePrefill
from quest_core.rope_variant import RopeVariant


class TokenSequence:
    """Token ids and their part of the KV cache, which always go together.

    Args:
        variant: the model as this sequence is computed with.
        cache: empty, or forked.

    Attributes:
        tokens: those in the cache.
        logits: float32 [vocab_size] after the last token; None where they are not known.
    """

    def __init__(self, variant: RopeVariant, cache: SequenceCache) -> None:
        self.variant = variant
        self.cache = cache
        self.tokens: list[int] = []
        self.logits: torch.Tensor | None = None
        self._chunk_ends: list[int] = []  # of the chunks that were computed one after the other from the first token on
        self._is_taken_over = False  # a prefill is finished, and nothing was computed for it

    def __len__(self) -> int:
        return len(self.tokens)

    def compute(self, chunk: list[int], observe: ObservePrefill | None = None) -> None:
        """Run the next tokens through the model, all at once.

        Raises:
            PoolExhausted: if the page pool is full; nothing has changed then, but that the logits are not known.
        """
        position = len(self.tokens)
        decoder = self.variant.decoder
        ids = torch.tensor(chunk, dtype=torch.long, device=decoder.device)
        self.logits = None
        self.logits = decoder.prefill(ids, self.cache, observe)
        self.tokens.extend(chunk)
        if position == self._computed_tokens:
            self._chunk_ends.append(position + len(chunk))

    def take_over(self, token_ids: Sequence[int], segments: Sequence[Segment]) -> None:
        """Count tokens whose pages, computed in these segments, the cache has been given."""
        position = len(self.tokens)
        self.logits = None
        self.tokens.extend(token_ids)
        if position == self._computed_tokens:
            self._chunk_ends += [segment.end for segment in segments]

    def append_decoded(self, token_id: int, logits: torch.Tensor) -> None:
        """Count a token that a decode step has written to the cache."""
        self.tokens.append(token_id)
        self.logits = logits

    def adopt(self, token_ids: Sequence[int], logits: torch.Tensor) -> None:
        """Count what the cache has been filled with, and the logits after it.

        Raises:
            ValueError: if the cache does not hold as many tokens.
        """
        if len(token_ids) != self.cache.length_tokens:
            raise ValueError(f"the cache holds {self.cache.length_tokens} tokens, not {len(token_ids)}")
        self.tokens = list(token_ids)
        self._chunk_ends = []
        self.logits = logits

    def finish_prefill(self) -> None:
        """Say that a prefill is complete, so that `require_logits` may compute what has only been taken over."""
        self._is_taken_over = self.logits is None

    def require_logits(self) -> torch.Tensor:
        """The logits after the last token.

        Raises:
            ValueError: before a prefill is finished.
        """
        if self.logits is None and self._is_taken_over:
            last = self.tokens[-1]
            self.truncate(len(self.tokens) - 1)
            self.compute([last])
        if self.logits is None:
            raise ValueError("decode needs a finished prefill")
        return self.logits

    def own_segments(self, segments: Sequence[Segment], length_tokens: int) -> int:
        """How many of a prompt's segments the first tokens were computed in, as a fresh prefill computes them."""
        count = 0
        for segment, end in zip(segments, self._chunk_ends, strict=False):
            if segment.end != end or end > length_tokens:
                break
            count += 1
        return count

    def common_prefix(self, token_ids: Sequence[int]) -> int:
        """How many of the first tokens are the same."""
        for index, (own, other) in enumerate(zip(self.tokens, token_ids, strict=False)):
            if own != other:
                return index
        return min(len(self.tokens), len(token_ids))

    def truncate(self, length_tokens: int) -> bool:
        """Forget all tokens from position `length_tokens` on; returns whether there was anything to forget."""
        if length_tokens == len(self.tokens) == self.cache.length_tokens:
            return False
        self.cache.truncate(length_tokens)
        del self.tokens[length_tokens:]
        while self._computed_tokens > length_tokens:
            self._chunk_ends.pop()
        self.logits = None
        self._is_taken_over = False
        return True

    def fork(self) -> TokenSequence:
        """A second sequence with the same tokens; pages are shared until one of the two writes to them."""
        other = TokenSequence(self.variant, self.cache.fork())
        other.tokens = list(self.tokens)
        other.logits = self.logits
        other._chunk_ends = list(self._chunk_ends)
        other._is_taken_over = self._is_taken_over
        return other

    @property
    def _computed_tokens(self) -> int:
        """The first tokens, of which it is known in what chunks they were computed."""
        return self._chunk_ends[-1] if self._chunk_ends else 0
