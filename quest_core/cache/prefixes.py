"""Which parts of a prompt are worth keeping, and the page pool's pages that hold such parts.

A prompt's prefix is cut into *segments*, on a grid of tokens and at each `Prefix.end_token`. A segment's key is a hash
of its tokens and of the key before it, down to a root that tells how positions are stretched: equal keys mean equal
tokens from the very first on, so that a table of keys is a trie. A segment that starts in the middle of a page holds
that page as a whole, the tokens before it included; its summaries speak for what was there when the segment ended.
Knows nothing of files, or of how pages are filled.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from quest_core.cache.paged_kv_cache import PagePool
from quest_core.value_checks import check_whole


@dataclass(frozen=True)
class Prefix:
    """Tokens [0, `end_token`) of a prompt are worth keeping.

    Args:
        end_token: where a later prompt may go on differently.
        owners: opaque ids; what is kept goes with any of them.
    """

    end_token: int
    owners: tuple[str, ...]


@dataclass(frozen=True)
class Segment:
    """Tokens [`start`, `end`) of a prompt.

    Args:
        key, parent: of this segment and of the one before it, or the root, in hex digits.
        tokens_hash: of its own tokens, in hex digits.
        owners: of the first prefix that it is part of.
    """

    key: str
    parent: str
    start: int
    end: int
    tokens_hash: str
    owners: tuple[str, ...]

    def page_span(self, page_size: int) -> tuple[int, int]:
        """The first of its logical pages, and the one after the last."""
        return self.start // page_size, -(-self.end // page_size)


def plan_segments(root: str, token_ids: Sequence[int], prefixes: Sequence[Prefix], grid_tokens: int) -> list[Segment]:
    """Cut the longest of `prefixes` into segments.

    Args:
        root: the key before the first segment.
        token_ids: of the whole prompt.
        prefixes: in any order.
        grid_tokens: a segment ends at each multiple of it.

    Raises:
        ValueError: for a prefix that is empty or longer than the prompt.
    """
    for prefix in prefixes:
        check_whole("end_token", prefix.end_token, 1, len(token_ids))
    ordered = sorted(prefixes, key=lambda prefix: prefix.end_token)
    segments: list[Segment] = []
    start, key = 0, root
    for prefix in ordered:
        while start < prefix.end_token:
            end = min((start // grid_tokens + 1) * grid_tokens, prefix.end_token)
            tokens_hash = hashlib.sha256(array("q", token_ids[start:end]).tobytes()).hexdigest()
            parent, key = key, hashlib.sha256(f"{key} {start} {end} {tokens_hash}".encode()).hexdigest()
            segments.append(Segment(key, parent, start, end, tokens_hash, prefix.owners))
            start = end
    return segments


@dataclass
class Kept:
    """A segment whose pages are in the pool; the pages are counted as used by it.

    Args:
        pages: physical, from the page of the segment's first token to that of its last.
        last_use: a number that grows from use to use.
    """

    segment: Segment
    pages: list[int]
    last_use: int = 0
    children: int = 0


@dataclass
class PrefixIndex:
    """Segments in the page pool, by key. Used on the engine's thread only, except for `forget` and `give_back`.

    Args:
        pool: whose pages these are.
    """

    pool: PagePool
    _kept: dict[str, Kept] = field(default_factory=dict)
    # What other threads want of the pool, whose counts are the engine's.
    _forgotten: deque[str] = field(default_factory=deque)
    _given_back: deque[list[int]] = field(default_factory=deque)

    def find(self, key: str) -> Kept | None:
        self.settle()
        return self._kept.get(key)

    def add(self, segment: Segment, pages: Sequence[int], now: int) -> Kept | None:
        """Keep `segment`, sharing `pages`; None if the segment before it is not kept any more."""
        self.settle()
        if (known := self._kept.get(segment.key)) is not None:
            return known
        parent = self._kept.get(segment.parent)
        if parent is None and segment.start > 0:
            return None
        if parent is not None:
            parent.children += 1
        for page in pages:
            self.pool.share(page)
        self._kept[segment.key] = kept = Kept(segment, list(pages), now)
        return kept

    def forget(self, owner: str) -> None:
        """From the next look-up on, keep nothing of `owner`; from any thread."""
        self._forgotten.append(owner)

    def give_back(self, pages: list[int]) -> None:
        """Count `pages` as used once less; from any thread."""
        self._given_back.append(pages)

    def settle(self) -> None:
        """Do what other threads have asked for."""
        while self._given_back:
            for page in self._given_back.popleft():
                self.pool.release(page)
        while self._forgotten:
            owner = self._forgotten.popleft()
            gone = {key for key, kept in self._kept.items() if owner in kept.segment.owners}
            while gone:  # and what follows them, which can no longer be found
                for key in gone:
                    self._drop(key)
                gone = {key for key, kept in self._kept.items() if self._is_cut_off(kept.segment)}

    def oldest(self) -> Kept | None:
        """The segment used longest ago that has none after it and whose going makes a page free."""
        leaves = (kept for kept in self._kept.values() if not kept.children and self._frees(kept))
        return min(leaves, key=lambda kept: kept.last_use, default=None)

    def evict(self, kept: Kept) -> None:
        """Take a segment without children out of the pool."""
        self._drop(kept.segment.key)

    def _is_cut_off(self, segment: Segment) -> bool:
        return segment.start > 0 and segment.parent not in self._kept

    def _frees(self, kept: Kept) -> bool:
        return any(not self.pool.is_shared(page) for page in kept.pages)

    def _drop(self, key: str) -> None:
        kept = self._kept.pop(key)
        if (parent := self._kept.get(kept.segment.parent)) is not None:
            parent.children -= 1
        for page in kept.pages:
            self.pool.release(page)
