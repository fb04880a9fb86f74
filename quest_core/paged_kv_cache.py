"""Paged KV cache: a pool of physical pages, and the page table of one token sequence.

A *page* holds the keys and values of `page_size` consecutive tokens, for all layers, with a summary of its
keys that selection scores (arXiv 2406.10774, section 3.3). Sequences share pages by reference count: a fork copies
nothing until it writes. Writing keys and values into pages is the kernels' work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from kernels.reference import FLOAT8, SUMMARY_VECTORS, KvScales, StepPages, scored_summaries, widen
from quest_core.config import ModelConfig


class PoolExhausted(RuntimeError):
    """No physical page is free."""


@dataclass(frozen=True)
class LayerPages:
    """One layer's part of the pool, as the kernels take it."""

    key_pages: torch.Tensor  # [physical_pages, kv_heads, page_size, head_dim]; float8 with scales
    value_pages: torch.Tensor  # [physical_pages, kv_heads, page_size, head_dim]; float8 with scales
    page_summaries: torch.Tensor  # [physical_pages, kv_heads, vectors, head_dim]
    summary_scales: torch.Tensor | None  # float32 [physical_pages, kv_heads, vectors]; None for floating summaries
    key_scales: torch.Tensor | None = None  # float32 [physical_pages, kv_heads, page_size]; None for floating pages
    value_scales: torch.Tensor | None = None  # likewise

    @property
    def kv_scales(self) -> KvScales | None:
        """Both scales, as the kernels take them."""
        return None if self.key_scales is None else (self.key_scales, self.value_scales)

    def keys_at(self, *index: torch.Tensor) -> torch.Tensor:
        """The keys at `index`, which has up to three tensors (pages, kv heads, slots), float32 [..., head_dim]."""
        return widen(self.key_pages[index], None if self.key_scales is None else self.key_scales[index])

    def values_at(self, *index: torch.Tensor) -> torch.Tensor:
        """The values, as `keys_at`."""
        return widen(self.value_pages[index], None if self.value_scales is None else self.value_scales[index])


@dataclass(frozen=True)
class CacheView:
    """A sequence's cache as one decode step takes it: tensors on the device, so that the step is a function of these.

    Args:
        pool: holds the pages.
        page_table: int32 [logical_pages], logical to physical; may be longer than the sequence.
        start_token: int32 [1], the new token's position.
        context_tokens: int32 [1], tokens with the new one.
        past_tokens: `start_token` on the host; None where only the device knows it.
    """

    pool: PagePool
    page_table: torch.Tensor
    start_token: torch.Tensor
    context_tokens: torch.Tensor
    past_tokens: int | None = None


class PagePool:
    """Physical pages for all layers, allocated once, with reference counts.

    Args:
        config: shape of the model.
        pages: physical pages.
        page_size: tokens in a page.
        device, dtype: of keys and values as the model computes with them.
        summary: which summary of a page's keys is kept, see `kernels.reference`.
        int8_summaries: keep summaries in 8 bits with a scale for each vector, instead of in `dtype`.
        kv_bits: 8 keeps keys and values as float8 with a scale for each token and kv head, see
            `kernels.reference.float8`; 16 keeps them in `dtype`.
        summary_levels: 2 keeps summaries of superpages too, see `kernels.reference.superpages`.
    """

    def __init__(
        self,
        config: ModelConfig,
        pages: int,
        page_size: int,
        device: torch.device,
        dtype: torch.dtype,
        summary: str = "mean",
        int8_summaries: bool = True,
        kv_bits: int = 16,
        summary_levels: int = 1,
    ) -> None:
        shape = (config.num_layers, pages, config.num_kv_heads, page_size, config.head_dim)
        self.page_size = page_size
        self.device = device
        self.dtype = dtype
        self.summary = summary
        kv_dtype = FLOAT8 if kv_bits == 8 else dtype
        self.keys = _empty(shape, device, kv_dtype)
        self.values = _empty(shape, device, kv_dtype)
        self.key_scales = _empty(shape[:4], device, torch.float32) if kv_bits == 8 else None
        self.value_scales = _empty(shape[:4], device, torch.float32) if kv_bits == 8 else None
        self.summary_levels = summary_levels
        vectors = (*shape[:3], summary_levels * SUMMARY_VECTORS[summary])
        summary_dtype = torch.int8 if int8_summaries else dtype
        self.summaries = _empty((*vectors, config.head_dim), device, summary_dtype)
        self.summary_scales = _empty(vectors, device, torch.float32) if int8_summaries else None
        layers = range(config.num_layers)
        self.layers = [LayerPages(*(None if store is None else store[i] for store in self._stores)) for i in layers]
        self._references = [0] * pages
        self._free = list(range(pages - 1, -1, -1))
        # Asked for room when no page is free; returns whether it freed any.
        self.reclaim: Callable[[], bool] = lambda: False

    @property
    def step_pages(self) -> StepPages:
        """All layers' parts, as a `WholeStep` takes them."""
        return StepPages(self.keys, self.values, self.summaries, self.summary_scales, self.summary)

    @staticmethod
    def page_bytes(
        config: ModelConfig,
        page_size: int,
        dtype: torch.dtype,
        summary: str = "mean",
        int8_summaries: bool = True,
        kv_bits: int = 16,
        summary_levels: int = 1,
    ) -> int:
        """Bytes of one physical page over all layers: keys, values and summaries."""
        vector_bytes = {8: config.head_dim + 4, 16: config.head_dim * dtype.itemsize}
        summary_bytes = summary_levels * SUMMARY_VECTORS[summary] * vector_bytes[8 if int8_summaries else 16]
        return config.num_layers * config.num_kv_heads * (2 * page_size * vector_bytes[kv_bits] + summary_bytes)

    @property
    def bytes(self) -> int:
        """Of the whole pool."""
        return sum(store.nbytes for store in self._stores if store is not None)

    @property
    def vector_bytes(self) -> int:
        """Bytes of one token's key, or value, of one kv head of one layer."""
        scale_bytes = 0 if self.key_scales is None else self.key_scales.element_size()
        return self.keys.shape[4] * self.keys.element_size() + scale_bytes

    @property
    def summary_bytes(self) -> int:
        """Bytes of one summary, of a page or a superpage, of one kv head of one layer."""
        scale_bytes = 0 if self.summary_scales is None else self.summary_scales.element_size()
        vectors = self.summaries.shape[3] // self.summary_levels
        return vectors * (self.summaries.shape[4] * self.summaries.element_size() + scale_bytes)

    def scored_bytes(self, num_pages: int, budget_pages: int) -> int:
        """Bytes of the summaries that one kv head of one layer reads to select among so many pages."""
        return scored_summaries(self.summary_levels, num_pages, budget_pages) * self.summary_bytes

    @property
    def pages(self) -> int:
        return len(self._references)

    @property
    def free_pages(self) -> int:
        return len(self._free)

    def allocate(self) -> int:
        """Take one page.

        Raises:
            PoolExhausted: if none is free and none can be reclaimed.
        """
        while not self._free:
            if not self.reclaim():
                raise PoolExhausted(f"All {self.pages} KV pages are in use.")
        page = self._free.pop()
        self._references[page] = 1
        return page

    def share(self, page: int) -> None:
        self._references[page] += 1

    def is_shared(self, page: int) -> bool:
        return self._references[page] > 1

    def release(self, page: int) -> None:
        self._references[page] -= 1
        if self._references[page] == 0:
            self._free.append(page)

    def copy(self, source: int, target: int) -> None:
        for store in self._stores:
            if store is not None:
                store[:, target].copy_(store[:, source])

    @property
    def _stores(self) -> tuple[torch.Tensor | None, ...]:
        """All that is kept of the pages, [layers, pages, ...] each, in the order of `LayerPages`."""
        return (self.keys, self.values, self.summaries, self.summary_scales, self.key_scales, self.value_scales)


def _empty(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    if device.type == "cpu":
        from kernels.cpu.large_pages import empty_on_large_pages

        return empty_on_large_pages(shape, dtype)
    return torch.empty(shape, device=device, dtype=dtype)


class SequenceCache:
    """The pages of one token sequence: logical page i holds tokens i * page_size onwards.

    Args:
        pool: where pages come from.
        max_tokens: longest sequence.
    """

    def __init__(self, pool: PagePool, max_tokens: int) -> None:
        self.pool = pool
        self.max_tokens = max_tokens
        self.length_tokens = 0
        self._pages: list[int] = []
        max_pages = -(-max_tokens // pool.page_size)
        self._page_table = torch.zeros(max_pages, dtype=torch.int32, device=pool.device)
        self.table_version = 0  # grows whenever an entry of the table changes

    @property
    def num_pages(self) -> int:
        return len(self._pages)

    @property
    def page_table(self) -> torch.Tensor:
        """int32 [num_pages] on the device: logical to physical."""
        return self._page_table[: len(self._pages)]

    @property
    def whole_page_table(self) -> torch.Tensor:
        """int32 [pages of the window] on the device; entries beyond `num_pages` are of no meaning, but in the pool."""
        return self._page_table

    def view(self) -> CacheView:
        """What a step that appends one token takes; its position must have been reserved."""
        past = self.length_tokens
        start, context = (
            torch.tensor([tokens], dtype=torch.int32, device=self.pool.device) for tokens in (past, past + 1)
        )
        return CacheView(self.pool, self.page_table, start, context, past)

    def reserve(self, new_tokens: int) -> None:
        """Make the next `new_tokens` positions writable: allocate pages, and copy a shared last page.

        Raises:
            ValueError: beyond `max_tokens`.
            PoolExhausted: with nothing changed but pages that were already allocated.
        """
        wanted_tokens = self.length_tokens + new_tokens
        if wanted_tokens > self.max_tokens:
            raise ValueError(f"{wanted_tokens} tokens do not fit the window of {self.max_tokens} tokens")
        changed_from = len(self._pages)
        partial = self.length_tokens // self.pool.page_size
        try:
            if self.length_tokens % self.pool.page_size and self.pool.is_shared(self._pages[partial]):
                shared = self._pages[partial]
                self._pages[partial] = self.pool.allocate()
                changed_from = partial
                self.pool.copy(shared, self._pages[partial])
                self.pool.release(shared)
            while len(self._pages) * self.pool.page_size < wanted_tokens:
                self._pages.append(self.pool.allocate())
        finally:
            # Pages that were allocated before the pool was exhausted stay this sequence's.
            self._write_table(changed_from)

    def _write_table(self, changed_from: int) -> None:
        if changed_from == len(self._pages):
            return
        self.table_version += 1
        if changed_from + 1 == len(self._pages):
            # A fill takes its value with it: a copy from the host would wait for the step that is running.
            self._page_table[changed_from].fill_(self._pages[changed_from])
        else:
            self._page_table[changed_from : len(self._pages)] = torch.tensor(
                self._pages[changed_from:], dtype=torch.int32
            )

    def advance(self, new_tokens: int) -> None:
        """Count `new_tokens` whose keys and values have been written."""
        self.length_tokens += new_tokens

    def truncate(self, length_tokens: int) -> None:
        """Forget everything from position `length_tokens` on."""
        if not 0 <= length_tokens <= self.length_tokens:
            raise ValueError(f"cannot truncate {self.length_tokens} tokens to {length_tokens}")
        keep_pages = -(-length_tokens // self.pool.page_size)
        for page in self._pages[keep_pages:]:
            self.pool.release(page)
        del self._pages[keep_pages:]
        self.length_tokens = length_tokens

    def last_pages(self, first_token: int) -> list[int]:
        """The physical pages from that of `first_token` to that of the last token."""
        return self._pages[first_token // self.pool.page_size : -(-self.length_tokens // self.pool.page_size)]

    def append_shared(self, pages: Sequence[int], end_token: int) -> None:
        """Go on with tokens that others have written, sharing their pages until somebody writes to them.

        Args:
            pages: physical, from the page of the next token on; where that is not its first, the tokens before it are
                the same as this sequence's.
            end_token: the last of them and one.

        Raises:
            ValueError: beyond `max_tokens`, or if these are not the pages up to `end_token`.
        """
        first = self.length_tokens // self.pool.page_size
        if end_token > self.max_tokens or len(pages) != -(-end_token // self.pool.page_size) - first:
            raise ValueError(f"{len(pages)} pages do not bring {self.length_tokens} tokens to {end_token}")
        for page in pages:
            self.pool.share(page)
        for page in self._pages[first:]:
            self.pool.release(page)
        self._pages[first:] = pages
        self.length_tokens = end_token
        self._write_table(first)

    def fork(self) -> SequenceCache:
        """A second sequence with the same tokens, sharing all pages."""
        other = SequenceCache(self.pool, self.max_tokens)
        self.truncate(self.length_tokens)  # drop pages reserved and never written
        for page in self._pages:
            self.pool.share(page)
        other._pages = list(self._pages)
        other._page_table.copy_(self._page_table)
        other.length_tokens = self.length_tokens
        return other

    def gather(
        self, layer: int, length_tokens: int, dtype: torch.dtype | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Copies of one layer's keys and values in order, for prefill.

        Args:
            layer: of the pool.
            length_tokens: how many, from the first on.
            dtype: of the copies; None for the one that the cache is in, or was before its 8 bits.

        Returns:
            Two tensors [kv_heads, length_tokens, head_dim]; views on a CPU, their last dimension contiguous.
        """
        pages, dtype = self.pool.layers[layer], dtype or self.pool.dtype
        table = self.page_table[: -(-length_tokens // self.pool.page_size)]
        if self.pool.device.type == "cpu":
            from kernels.cpu.gather_pages import gather_pages

            gathered = gather_pages(pages.key_pages, pages.value_pages, table, length_tokens, dtype, pages.kv_scales)
            return tuple(tokens.transpose(0, 1) for tokens in gathered)
        table = table.long()
        heads, head_dim = pages.key_pages.shape[1], pages.key_pages.shape[3]
        stores = ((pages.key_pages, pages.key_scales), (pages.value_pages, pages.value_scales))
        return tuple(
            widen(store[table], None if scales is None else scales[table], dtype)
            .transpose(0, 1)
            .reshape(heads, -1, head_dim)[:, :length_tokens]
            for store, scales in stores
        )
