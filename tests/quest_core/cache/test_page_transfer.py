"""Pages to bytes and back, for every kind of cache."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from kernels.contract import SUMMARIES, CacheLayout, LayerCache
from kernels.float8 import FLOAT8
from quest_core.cache.page_transfer import PageTransfer
from quest_core.cache.paged_kv_cache import PagePool

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def random_pool(device: str, layout: CacheLayout) -> PagePool:
    pool = PagePool(layout, 3, 23, torch.device(device))
    generator = torch.Generator().manual_seed(0)
    for tensor in pool.cache.tensors:
        content = torch.randint(0, 256, (tensor.nbytes,), dtype=torch.uint8, generator=generator)
        tensor.copy_(content.view(tensor.dtype).view(tensor.shape))
    return pool


def layout_of(dtype: torch.dtype, summary: str, summary_dtype: torch.dtype) -> CacheLayout:
    return CacheLayout(16, 2, 8, dtype, SUMMARIES[summary], summary_dtype)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("pages", [[4], [4, 5, 6, 7], [9, 2, 3, 0], [22, 21]])
@pytest.mark.parametrize(
    "layout",
    [
        (torch.float32, "mean", torch.int8),
        (torch.float16, "bounds", torch.float16),
        (torch.bfloat16, "bounds", torch.int8),
        (FLOAT8, "bounds", torch.int8),
    ],
    ids=str,
)
def test_what_is_read_is_written_bit_by_bit(device, pages, layout):
    source, target = (random_pool(device, layout_of(*layout)) for _ in range(2))
    for tensor in target.cache.tensors:
        tensor.view(torch.uint8).zero_()
    reader, writer = PageTransfer(source), PageTransfer(target)
    tensors = reader.layout(len(pages))
    pieces = list(reader.pieces(len(pages)))
    assert [piece.start for piece in pieces[1:]] == [piece.end for piece in pieces[:-1]]
    assert pieces[-1].end == sum(tensor.bytes for tensor in tensors)
    after = writer.mark()
    target_pages = [page + 1 if page < 22 else 1 for page in pages]
    for piece in pieces:
        data = np.full(piece.end - piece.start, 255, np.uint8)
        reader.read(piece, pages, 5, data)
        writer.write(piece, target_pages, data, after)
    for name, left, right in zip(LayerCache._fields[1:], source.cache[1:], target.cache[1:], strict=True):
        if left is None:
            assert right is None
            continue
        left, right = left.view(torch.uint8).cpu(), right.view(torch.uint8).cpu()
        by_token = name not in ("summaries", "summary_scales")
        if by_token:  # the last page has five tokens, and what lies beyond them is undefined
            left = left.clone().unflatten(3, (16, -1)) if "scales" in name else left.clone()
            right = right.unflatten(3, (16, -1)) if "scales" in name else right
            left[:, pages[-1], :, 5:] = 0
        for page, target_page in zip(pages, target_pages, strict=True):
            assert torch.equal(left[:, page], right[:, target_page]), name
        others = sorted(set(range(23)) - set(target_pages))
        assert not right[:, others].any()


@pytest.mark.parametrize("device", DEVICES)
def test_a_file_describes_its_tensors_in_order_of_their_width(device):
    transfer = PageTransfer(random_pool(device, layout_of(FLOAT8, "bounds", torch.int8)))
    kinds = [tensor.kind for tensor in transfer.layout(3)]
    assert sorted(kinds) == sorted(["F8_E4M3", "F8_E4M3", "I8", "F32", "F32", "F32"])
    assert [kind for kind, _ in itertools.groupby(kinds)][0] == "F32"
    assert {tensor.shape[:2] for tensor in transfer.layout(3)} == {(3, 3)}
