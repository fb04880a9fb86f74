"""Paged KV cache: a pool of physical pages, and the page table of one token sequence.

A *page* holds the keys and values of `page_size` consecutive tokens, for all layers, with a summary of its
keys that selection scores (arXiv 2406.10774, section 3.3). Sequences share pages by reference count: a fork copies
nothing until it writes. Writing keys and values into pages is the kernels' work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from kernels.contract import CacheLayout, LayerCache, SequenceView
from kernels.float8 import widen


class PoolExhausted(RuntimeError):
    """No physical page is free."""


class PagePool:
    """Physical pages for all layers, allocated once, with reference counts.

    Args:
        layout: of one layer's pages.
        layers: of the model.
        pages: physical pages.
        device: where they lie.

    Attributes:
        cache: the pages of all layers.
        layers: views of each layer's.
    """

    def __init__(self, layout: CacheLayout, layers: int, pages: int, device: torch.device) -> None:
        self.layout = layout
        self.device = device
        specs = layout.specs(pages).items()
        self.cache = LayerCache(
            layout, **{name: _empty((layers, *spec.shape), device, spec.dtype) for name, spec in specs}
        )
        self.layers = [self.cache.layer(index) for index in range(layers)]
        self._references = [0] * pages
        self._free = list(range(pages - 1, -1, -1))
        # Asked for room when no page is free; returns whether it freed any.
        self.reclaim: Callable[[], bool] = lambda: False

    @property
    def page_size(self) -> int:
        """Tokens in a page."""
        return self.layout.page_size

    @property
    def bytes(self) -> int:
        """Of the whole pool."""
        return sum(tensor.nbytes for tensor in self.cache.tensors)

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
        for tensor in self.cache.tensors:
            tensor[:, target].copy_(tensor[:, source])


def _empty(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    if device.type == "cpu":
        from kernels.cpu_tools.large_pages import empty_on_large_pages

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
        self.table_version = 0  # grows whenever an element of the table changes

    @property
    def num_pages(self) -> int:
        return len(self._pages)

    @property
    def page_table(self) -> torch.Tensor:
        """int32 [num_pages] on the device: logical to physical."""
        return self._page_table[: len(self._pages)]

    @property
    def whole_page_table(self) -> torch.Tensor:
        """int32 [pages of the window] on the device; elements beyond `num_pages` mean nothing, but are valid pages."""
        return self._page_table

    def view(self, new_tokens: int) -> SequenceView:
        """What a step that appends `new_tokens` takes; their positions must have been reserved."""
        length_tokens = self.length_tokens + new_tokens
        return SequenceView(
            self.page_table, torch.tensor([length_tokens], dtype=torch.int32, device=self.pool.device)
        )

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
            dtype: of the copies; None for the cache's own, or one that holds its float8 codes exactly.

        Returns:
            Two tensors [kv_heads, length_tokens, head_dim]; views on a CPU, their last dimension contiguous.
        """
        cache, layout = self.pool.layers[layer], self.pool.layout
        dtype = dtype or (torch.bfloat16 if layout.is_float8 else layout.dtype)
        table = self.page_table[: -(-length_tokens // layout.page_size)]
        if self.pool.device.type == "cpu":
            from kernels.prefill.cpu import gather_pages

            return tuple(tokens.transpose(0, 1) for tokens in gather_pages(cache, table, length_tokens, dtype))
        table = table.long()
        stores = ((cache.key_pages, cache.key_scales), (cache.value_pages, cache.value_scales))
        return tuple(
            widen(pages[table], None if scales is None else scales[table], dtype)
            .transpose(0, 1)
            .reshape(layout.kv_heads, -1, layout.head_dim)[:, :length_tokens]
            for pages, scales in stores
        )
