"""The implementations under test, and paged caches to test them on.

`ops` runs a test with the CPU kernels, with the Triton kernels interpreted on the CPU, or with the Triton kernels
compiled on a GPU (`pytest -m gpu`); which cases each gets, `cases.py` says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch

from kernels.contract import SUMMARIES, CacheLayout, Kernels, LayerCache, SequenceView
from kernels.float8 import widen
from tests.kernels.cases import ALL_PARAMETERS, DTYPES


@dataclass(frozen=True)
class Implementation:
    """A set of operators, the device it runs on, and the dtypes of the cache it takes."""

    name: str
    kernels: Kernels
    device: torch.device
    dtypes: tuple[torch.dtype, ...]


@pytest.fixture(params=ALL_PARAMETERS)
def ops(request) -> Implementation:
    """One implementation of the operators."""
    if request.param == "cpu":
        import kernels.cpu as implementation
    else:
        import kernels.gpu as implementation
    device = torch.device("cuda" if request.param == "cuda" else "cpu")
    return Implementation(request.param, implementation, device, DTYPES[request.param])


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch):
    """Fill what `torch.empty` and `torch.empty_like` return, so that an element nobody writes shows."""
    for name in ("empty", "empty_like"):
        original = getattr(torch, name)

        def poisoned(*arguments, original=original, **options):
            tensor = original(*arguments, **options)
            return tensor.fill_(float("nan") if tensor.is_floating_point() else -77)

        monkeypatch.setattr(torch, name, poisoned)


class PagedCase(NamedTuple):
    """One sequence in one layer's cache, with a permuted page table; every page it does not map holds NaN.

    Args:
        keys, values: [tokens, kv_heads, head_dim].
        query: [query_heads, head_dim].
        cache: what the operators take; its key, value and summary tensors hold `keys` and `values`.
        sequence: all tokens.
    """

    keys: torch.Tensor
    values: torch.Tensor
    query: torch.Tensor
    cache: LayerCache
    sequence: SequenceView

    @property
    def physical_pages(self) -> torch.Tensor:
        """int64 [logical_pages], as an index."""
        return self.sequence.page_table.long()

    def first(self, tokens: int) -> SequenceView:
        """The sequence when it had only its first `tokens`."""
        return self.sequence._replace(length_tokens=torch.full_like(self.sequence.length_tokens, tokens))

    def kept_summaries(self) -> torch.Tensor:
        """What the summaries of its pages stand for, float32 [logical_pages, kv_heads, vectors, head_dim]."""
        scales = self.cache.summary_scales
        return widen(self.cache.summaries[self.physical_pages], None if scales is None else scales[self.physical_pages])


def empty_cache(layout: CacheLayout, pages: int, device: torch.device) -> LayerCache:
    """So many physical pages in which everything that nobody writes shows: NaN, and -77 in int8 summaries."""
    tensors = {}
    for name, (shape, dtype) in layout.specs(pages).items():
        unwritten = float("nan") if dtype.is_floating_point else -77
        tensors[name] = torch.full(shape, unwritten, device=device).to(dtype)
    return LayerCache(layout, **tensors)


def permuted_table(pages: int, generator: torch.Generator, device: torch.device) -> torch.Tensor:
    """int32 [pages] into a pool of three more."""
    return torch.randperm(pages + 3, generator=generator)[:pages].int().to(device)


def write_summaries(cache: LayerCache, keys: torch.Tensor, physical_pages: list[int]) -> None:
    """Those of each page's keys, in plain torch, apart from the specification."""
    page_size, has_steps = cache.layout.page_size, cache.layout.has_int8_summaries
    for logical, page in enumerate(physical_pages):
        page_keys = keys[logical * page_size : (logical + 1) * page_size].float()
        parts = {
            "bounds": (page_keys.amin(0), page_keys.amax(0)),
            "mean": (page_keys.mean(0),),
        }[cache.layout.summary.name]
        exact = torch.stack(parts, dim=1)  # [kv_heads, vectors, head_dim]
        if has_steps:
            cache.summary_scales[page] = exact.abs().amax(2) / 126.5
            exact = (exact / cache.summary_scales[page].unsqueeze(2)).round()
        cache.summaries[page] = exact.to(cache.layout.summary_dtype)


@pytest.fixture
def make_case() -> Callable[..., PagedCase]:
    """Builds a filled cache; the summaries are those of the keys, written with plain torch."""

    def make(
        device, dtype, tokens, kv_heads=2, group=1, head_dim=64, page_size=16, seed=0, summary="bounds", int8=False
    ) -> PagedCase:
        cpu = torch.device("cpu")  # the same numbers for every device
        generator = torch.Generator().manual_seed(seed)
        pages = -(-tokens // page_size)
        keys, values = torch.randn((2, tokens, kv_heads, head_dim), generator=generator).to(dtype)
        page_table = permuted_table(pages, generator, cpu)
        summary_dtype = torch.int8 if int8 else dtype
        layout = CacheLayout(page_size, kv_heads, head_dim, dtype, SUMMARIES[summary], summary_dtype)
        cache = empty_cache(layout, pages + 3, cpu)
        positions = torch.arange(tokens)
        physical, slots = page_table.long()[positions // page_size], positions % page_size
        cache.key_pages[physical, :, slots], cache.value_pages[physical, :, slots] = keys, values
        write_summaries(cache, keys, page_table.tolist())
        query = torch.randn((kv_heads * group, head_dim), generator=generator).to(dtype)
        length = torch.tensor([tokens], dtype=torch.int32)
        cache = LayerCache(layout, *(None if tensor is None else tensor.to(device) for tensor in cache[1:]))
        sequence = SequenceView(page_table.to(device), length.to(device))
        return PagedCase(keys.to(device), values.to(device), query.to(device), cache, sequence)

    return make


@pytest.fixture
def assert_close() -> Callable[..., None]:
    """Relative root mean square error against a float32 reference, bounded by the precision of the result's dtype."""
    bounds = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}

    def check(actual: torch.Tensor, expected: torch.Tensor, bound: float | None = None) -> None:
        assert actual.shape == expected.shape
        assert not actual.isnan().any()
        error = (actual.float() - expected.float()).norm() / expected.float().norm()
        assert error <= (bounds[actual.dtype] if bound is None else bound)

    return check
