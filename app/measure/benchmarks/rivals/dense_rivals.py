"""Dense attention of one token, ours and others', over the same random caches.

Each rival is a call for one layer. One that cannot run here raises when it is built or first called.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from app.measure.benchmarks.subjects.kernel_cases import KernelCase
from kernels.contract import Kernels

SDPA_BACKENDS = {"sdpa_flash": SDPBackend.FLASH_ATTENTION, "sdpa_cudnn": SDPBackend.CUDNN_ATTENTION}
FLASHINFER_WORKSPACE_BYTES = 2**27
Call = Callable[[int], torch.Tensor]


def dense_builders(case: KernelCase, kernels: Kernels) -> dict[str, Callable[[], Call]]:
    """Rival -> what builds its call; `ours` is always there, FlashInfer if it is installed and can read the pages.

    Over 8-bit pages SDPA reads 16-bit copies of what they stand for.
    """
    contiguous: list[tuple[torch.Tensor, torch.Tensor]] = []  # copied once, for all backends of SDPA

    def sdpa(backend: SDPBackend) -> Call:
        if not contiguous:
            contiguous.extend([_gather(case, layer) for layer in range(len(case.layers))])
        return _sdpa_call(case, contiguous, backend)

    builders = {name: lambda backend=backend: sdpa(backend) for name, backend in SDPA_BACKENDS.items()}
    builders["ours"] = lambda: _our_call(case, kernels)
    if importlib.util.find_spec("flashinfer") and case.layout.kv_bits == 16:
        builders["flashinfer"] = lambda: _flashinfer_call(case)
    return builders


def _our_call(case: KernelCase, kernels: Kernels) -> Call:
    def attend(layer: int) -> torch.Tensor:
        return kernels.dense_decode_attention(case.queries[layer], case.layers[layer], case.sequence, case.scale)

    return attend


def _gather(case: KernelCase, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One layer's keys and values, contiguous [1, kv_heads, tokens, head_dim], one head at a time."""
    cache, table, tokens = case.layers[layer], case.sequence.page_table.long(), int(case.sequence.length_tokens)
    shape = (1, case.shape.kv_heads, tokens, case.shape.head_dim)
    gathered = []
    for vectors_at in (cache.keys_at, cache.values_at):
        copy = torch.empty(shape, dtype=case.queries.dtype, device=table.device)
        for head in range(case.shape.kv_heads):
            copy[0, head] = vectors_at(table, torch.full_like(table, head)).flatten(0, 1)[:tokens]
        gathered.append(copy)
    return tuple(gathered)


def _sdpa_call(case: KernelCase, contiguous: list[tuple[torch.Tensor, torch.Tensor]], backend: SDPBackend) -> Call:
    # One token needs no mask, so that the query heads of a group can stand as rows of their kv head: every backend
    # takes that, and reads the keys once a group; expanded heads it would read once a query head.
    queries = case.queries.view(len(case.layers), 1, case.shape.kv_heads, -1, case.shape.head_dim)

    def attend(layer: int) -> torch.Tensor:
        with sdpa_kernel(backend):
            attended = scaled_dot_product_attention(queries[layer], *contiguous[layer], scale=case.scale)
        return attended.view(case.shape.q_heads, case.shape.head_dim)

    return attend


def _flashinfer_call(case: KernelCase) -> Call:
    """FlashInfer's batch decode over our own pages, planned once."""
    import flashinfer

    device, pages = case.queries.device, case.sequence.logical_pages
    workspace = torch.empty(FLASHINFER_WORKSPACE_BYTES, dtype=torch.uint8, device=device)
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
        workspace, kv_layout="HND", use_tensor_cores=case.shape.q_heads > case.shape.kv_heads
    )
    last_page_tokens = (int(case.sequence.length_tokens) - 1) % case.layout.page_size + 1
    wrapper.plan(
        torch.tensor([0, pages], dtype=torch.int32, device=device),
        case.sequence.page_table,
        torch.tensor([last_page_tokens], dtype=torch.int32, device=device),
        case.shape.q_heads,
        case.shape.kv_heads,
        case.shape.head_dim,
        case.layout.page_size,
        q_data_type=case.queries.dtype,
        kv_data_type=case.pool.layout.dtype,
        sm_scale=case.scale,
    )

    def attend(layer: int) -> torch.Tensor:
        stores = (case.layers[layer].key_pages, case.layers[layer].value_pages)
        return wrapper.run(case.queries[layer][None], stores)[0]

    return attend
