"""The implementations under test, and paged caches to test them on.

`ops` runs a test with the CPU kernels, with the Triton kernels interpreted on the CPU, and with the Triton kernels
compiled on a GPU (`pytest -m gpu`). The interpreter is slow: it gets the cases that differ in kind, the GPU gets all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import pytest
import torch

HAS_GPU = torch.cuda.is_available()  # without one, tests/conftest.py has Triton interpret its kernels

DTYPES = {
    "cpu": (torch.float32,),
    # Its tl.dot multiplies the bit patterns of bfloat16 (seen in triton 3.7.1).
    "interpreter": (torch.float16, torch.float32),
    "cuda": (torch.float16, torch.bfloat16, torch.float32),
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the cases that an implementation does not take or the interpreter need not repeat."""
    unwanted = [item for item in items if not _is_wanted(item)]
    config.hook.pytest_deselected(items=unwanted)
    items[:] = [item for item in items if _is_wanted(item)]


def _is_wanted(item: pytest.Item) -> bool:
    parameters = dict(item.callspec.params) if hasattr(item, "callspec") else {}
    implementation = parameters.pop("ops", None)
    if implementation is None:
        return True
    if parameters.get("dtype", torch.float32) not in DTYPES[implementation]:
        return False
    if implementation != "interpreter":
        return True
    return not HAS_GPU and getattr(item.function, "interpret_when", lambda **parameters: True)(**parameters)


@dataclass(frozen=True)
class Implementation:
    """A set of operators, the device it runs on, and the dtypes of the cache it takes."""

    name: str
    kernels: ModuleType
    device: torch.device
    dtypes: tuple[torch.dtype, ...]


@pytest.fixture(params=["cpu", "interpreter", pytest.param("cuda", marks=pytest.mark.gpu)])
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


@dataclass
class PagedCase:
    """One layer's cache with a permuted page table; every page it does not map holds NaN."""

    keys: torch.Tensor  # [tokens, kv_heads, head_dim]
    values: torch.Tensor
    key_pages: torch.Tensor
    value_pages: torch.Tensor
    page_summaries: torch.Tensor
    summary_scales: torch.Tensor | None
    page_table: torch.Tensor
    context_tokens: torch.Tensor
    query: torch.Tensor  # [query_heads, head_dim]

    def score_arguments(self, page_size, summary="bounds", scale=1.0):
        """What `page_scores` takes."""
        return (
            self.query, self.page_summaries, self.page_table, self.context_tokens, page_size, summary, scale,
            self.summary_scales,
        )  # fmt: skip


@pytest.fixture
def make_case() -> Callable[..., PagedCase]:
    """Builds a filled cache; the summaries are those of the keys, written with plain torch."""

    def make(
        device, dtype, tokens, kv_heads=2, group=1, head_dim=64, page_size=16, seed=0, summary="bounds", int8=False
    ) -> PagedCase:
        generator = torch.Generator().manual_seed(seed)
        pages = -(-tokens // page_size)
        keys, values = torch.randn((2, tokens, kv_heads, head_dim), generator=generator).to(dtype)
        page_table = torch.randperm(pages + 3, generator=generator)[:pages]
        shape = (pages + 3, kv_heads, page_size, head_dim)
        key_pages, value_pages = torch.full((2, *shape), float("nan"), dtype=dtype)
        vectors = (pages + 3, kv_heads, 1 if summary == "mean" else 2)
        page_summaries = torch.full((*vectors, head_dim), -77 if int8 else float("nan"))
        summary_scales = torch.full(vectors, float("nan"))
        positions = torch.arange(tokens)
        physical, slots = page_table[positions // page_size], positions % page_size
        key_pages[physical, :, slots], value_pages[physical, :, slots] = keys, values
        for logical, page in enumerate(page_table.tolist()):
            page_keys = keys[logical * page_size : (logical + 1) * page_size].float()
            mean = page_keys.mean(0)
            parts = {
                "bounds": (page_keys.amin(0), page_keys.amax(0)),
                "spread": (mean, (page_keys - mean).abs().mean(0)),
                "mean": (mean,),
            }[summary]
            exact = torch.stack(parts, dim=1)  # [kv_heads, vectors, head_dim]
            if int8:
                summary_scales[page] = exact.abs().amax(2) / 126.5
                exact = exact / summary_scales[page].unsqueeze(2)
                exact = exact.round()
            page_summaries[page] = exact
        page_summaries = page_summaries.to(torch.int8 if int8 else dtype)
        query = torch.randn((kv_heads * group, head_dim), generator=generator).to(dtype)
        lengths = torch.tensor([tokens], dtype=torch.int32)
        scales = summary_scales if int8 else None
        tensors = (keys, values, key_pages, value_pages, page_summaries, scales, page_table.int(), lengths, query)
        return PagedCase(*(None if tensor is None else tensor.to(device) for tensor in tensors))

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
