"""Pages to bytes and back, for every kind of store."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from quest_core.config import ModelConfig, RopeConfig
from quest_core.page_transfer import PageTransfer
from quest_core.paged_kv_cache import PagePool

MODEL = ModelConfig("llama", 10, 8, 8, 3, 4, 2, 8, 1e-5, RopeConfig(), 4096)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def random_pool(device: str, dtype: torch.dtype, *layout) -> PagePool:
    pool = PagePool(MODEL, 23, 16, torch.device(device), dtype, *layout)
    generator = torch.Generator().manual_seed(0)
    for store in pool._stores:
        if store is not None:
            content = torch.randint(0, 256, (store.nbytes,), dtype=torch.uint8, generator=generator)
            store.copy_(content.view(store.dtype).view(store.shape))
    return pool


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("pages", [[4], [4, 5, 6, 7], [9, 2, 3, 0], [22, 21]])
@pytest.mark.parametrize(
    "layout",
    [
        (torch.float32, "mean", True, 16, 1),
        (torch.float16, "bounds", False, 16, 2),
        (torch.bfloat16, "spread", True, 16, 1),
        (torch.bfloat16, "bounds", True, 8, 2),
    ],
    ids=str,
)
def test_what_is_read_is_written_bit_by_bit(device, pages, layout):
    source, target = random_pool(device, *layout), random_pool(device, *layout)
    for store in target._stores:
        if store is not None:
            store.view(torch.uint8).zero_()
    reader, writer = PageTransfer(source), PageTransfer(target)
    tensors = reader.layout(len(pages))
    pieces = list(reader.pieces(len(pages)))
    assert [piece.start for piece in pieces[1:]] == [piece.end for piece in pieces[:-1]]
    assert pieces[-1].end == sum(tensor.bytes for tensor in tensors)
    after = writer.mark()
    places = [page + 1 if page < 22 else 1 for page in pages]
    for piece in pieces:
        data = np.full(piece.end - piece.start, 255, np.uint8)
        reader.read(piece, pages, 5, data)
        writer.write(piece, places, data, after)
    for name in ("keys", "values", "summaries", "summary_scales", "key_scales", "value_scales"):
        left, right = getattr(source, name), getattr(target, name)
        if left is None:
            assert right is None
            continue
        left, right = left.view(torch.uint8).cpu(), right.view(torch.uint8).cpu()
        by_token = name not in ("summaries", "summary_scales")
        if by_token:  # the last page has five tokens, and what lies beyond them is nobody's business
            left = left.clone().unflatten(3, (16, -1)) if "scales" in name else left.clone()
            right = right.unflatten(3, (16, -1)) if "scales" in name else right
            left[:, pages[-1], :, 5:] = 0
        for page, place in zip(pages, places, strict=True):
            assert torch.equal(left[:, page], right[:, place]), name
        others = sorted(set(range(23)) - set(places))
        assert not right[:, others].any()


@pytest.mark.parametrize("device", DEVICES)
def test_a_file_describes_its_tensors_in_order_of_their_width(device):
    transfer = PageTransfer(random_pool(device, torch.bfloat16, "bounds", True, 8, 2))
    kinds = [tensor.kind for tensor in transfer.layout(3)]
    assert sorted(kinds) == sorted(["F8_E4M3", "F8_E4M3", "I8", "F32", "F32", "F32"])
    assert [kind for kind, _ in itertools.groupby(kinds)][0] == "F32"
    assert {tensor.shape[:2] for tensor in transfer.layout(3)} == {(3, 3)}
