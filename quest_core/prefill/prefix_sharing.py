"""What sessions do with prefixes: take over the segments that are kept, in the pool or on the disk, and keep new ones.

Used on the engine's thread. Knows nothing of how tokens become pages.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

from quest_core.cache.page_transfer import PageTransfer
from quest_core.cache.paged_kv_cache import PagePool, PoolExhausted, SequenceCache
from quest_core.cache.prefixes import Kept, Prefix, PrefixIndex, Segment, plan_segments
from quest_core.cache.snapshot_files import SnapshotFault
from quest_core.cache.snapshot_store import SnapshotStore
from quest_core.rope_variant import RopeVariant
from quest_core.session_registry import SessionRegistry

# A file's checksum takes a processor as long as reading it from memory does; more threads than these meet the disk.
MAX_READERS = 8
# Read between two chances to cancel or to pause.
FILES_FOR_READER = 2
# Fewer, longer pieces of a prompt cost less; more, shorter ones lose less and are more often shared.
MAX_SEGMENT_TOKENS = 4096


@dataclass(frozen=True)
class Taken:
    """Segments that a sequence has taken over: how many, and the bytes that were read from the disk for them."""

    segments: int
    restored_bytes: int = 0


class PrefixSharing:
    """Shares the prefixes of all sessions of one engine.

    Args:
        pool: of the sessions' pages.
        registry: of the sessions, for what was used when.
        chunk_tokens: of a prefill.
        root: of all keys; the same for what computes the same pages.
        transfer, store: of what is kept on the disk; None if nothing is.
    """

    def __init__(
        self,
        pool: PagePool,
        registry: SessionRegistry,
        chunk_tokens: int,
        root: str,
        index: PrefixIndex,
        transfer: PageTransfer | None = None,
        store: SnapshotStore | None = None,
    ) -> None:
        self._pool = pool
        self._registry = registry
        self._grid_tokens = min(chunk_tokens, MAX_SEGMENT_TOKENS)
        self._root = root
        self._index = index
        self._transfer = transfer
        self._store = store
        self._readers: ThreadPoolExecutor | None = None
        pool.reclaim = self._reclaim

    def plan(self, token_ids: list[int], prefixes: Sequence[Prefix], variant: RopeVariant) -> list[Segment]:
        """The segments of a prompt under a RoPE variant.

        Raises:
            ValueError: for a prefix that is empty or longer than the prompt.
        """
        # Keys are cached rotated.
        return plan_segments(f"{self._root} {variant.decoder.config.rope}", token_ids, prefixes, self._grid_tokens)

    def note_use(self, segments: Sequence[Segment], cache: SequenceCache, own: int) -> None:
        """Tell that a prompt begins with `segments`, the first `own` of which are in `cache` as they were computed."""
        page_size = self._pool.page_size
        for number, segment in enumerate(segments):
            kept = self._index.find(segment.key)
            if kept is None and number < own:
                # The page that a segment ends in is another's as soon as it is written on.
                if segment.end % page_size or segment.start % page_size:
                    break
                pages = cache.last_pages(segment.start)[: (segment.end - segment.start) // page_size]
                kept = self._index.add(segment, pages, self._registry.now)
            if kept is None:
                break
            kept.last_use = self._registry.now
            self._save(kept)
        if self._store is not None:
            self._store.used(segments)

    def keep(self, segment: Segment, cache: SequenceCache) -> None:
        """Keep a segment that has just been computed as the last of `cache`."""
        kept = self._index.add(segment, cache.last_pages(segment.start), self._registry.now)
        if kept is not None:
            self._save(kept)

    def take(self, segments: Sequence[Segment], cache: SequenceCache) -> Taken:
        """Bring `cache`, which ends where the first of `segments` begins, as far on as can be done in one go.

        Raises:
            PoolExhausted: if no page is free for what is on the disk.
        """
        count = 0
        for segment in segments:
            kept = self._index.find(segment.key)
            if kept is None:
                break
            kept.last_use = self._registry.now
            cache.append_shared(kept.pages, segment.end)
            count += 1
        if count or self._store is None:
            return Taken(count)
        return self._restore(segments, cache)

    def forget(self, owner: str) -> None:
        """Keep nothing of `owner` from now on; from any thread."""
        self._index.forget(owner)

    def close(self) -> None:
        """End the threads."""
        if self._readers is not None:
            self._readers.shutdown()

    def _restore(self, segments: Sequence[Segment], cache: SequenceCache) -> Taken:
        readers = min(MAX_READERS, os.cpu_count() or 1)
        batch: list[tuple[Segment, list[int]]] = []
        full: PoolExhausted | None = None
        for segment in segments[: readers * FILES_FOR_READER]:
            if not self._store.has(segment):
                break
            try:
                batch.append((segment, self._allocate(segment)))
            except PoolExhausted as error:
                full = error
                break
        if not batch:
            if full is not None:
                raise full
            return Taken(0)
        if self._readers is None:
            self._readers = ThreadPoolExecutor(readers, "quest-snapshot-reader")
        after = self._transfer.mark()
        loads = [self._readers.submit(self._store.load, segment, pages, after) for segment, pages in batch]
        wait(loads)  # before any page may be another's
        count = restored_bytes = 0
        for (segment, pages), load in zip(batch, loads, strict=True):
            error = load.exception()
            if isinstance(error, SnapshotFault):
                self._store.reject(segment)
            if error is None and segment is segments[count]:  # all before it were whole
                self._index.add(segment, pages, self._registry.now)
                cache.append_shared(pages, segment.end)
                count += 1
                restored_bytes += load.result()
            for page in pages:
                self._pool.release(page)
        # What cannot be read, or another process has removed meanwhile, is computed; other errors are the device's.
        for load in loads:
            if not isinstance(load.exception(), (SnapshotFault, OSError, type(None))):
                load.result()
        return Taken(count, restored_bytes)

    def _allocate(self, segment: Segment) -> list[int]:
        first, end = segment.page_span(self._pool.page_size)
        pages: list[int] = []
        try:
            for _ in range(first, end):
                pages.append(self._pool.allocate())
        except PoolExhausted:
            for page in pages:
                self._pool.release(page)
            raise
        return pages

    def _save(self, kept: Kept) -> None:
        if self._store is None or self._store.read_only:
            return
        # Counted before the order is given: it may be done the next moment.
        for page in kept.pages:
            self._pool.share(page)
        if not self._store.keep(kept.segment, kept.pages):
            for page in kept.pages:
                self._pool.release(page)

    def _reclaim(self) -> bool:
        """Make room in the pool: what was used longest ago goes, an idle session's pages or a segment's."""
        self._index.settle()
        if self._pool.free_pages:
            return True
        idle, oldest = self._registry.oldest_idle(), self._index.oldest()
        if idle is not None and (oldest is None or idle[1] <= oldest.last_use):
            idle[0].truncate(0)
            return True
        if oldest is not None:
            self._index.evict(oldest)
            return True
        # Nothing is left but what waits to be written, or is being written.
        dropped = self._store is not None and self._store.drop_orders()
        self._index.settle()
        return dropped
