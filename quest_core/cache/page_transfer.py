"""KV pages between the pool and bytes in the host's memory, piece by piece: one layer of one tensor of the cache.

Safe beside the engine's thread for pages that nobody writes to. On a GPU every thread has a stream of its own, and
pages to be filled wait for what was launched before on the engine's. Knows nothing of files or of sequences.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from quest_core.cache.paged_kv_cache import PagePool
from quest_core.cache.snapshot_files import TYPE_BYTES, TensorLayout

_KINDS = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int8: "I8",
    torch.float8_e4m3fn: "F8_E4M3",
}
# Tensors with an element for each token of a page; the others have one for the page.
_BY_TOKEN = ("keys", "values", "key_scales", "value_scales")
# A file's names for the fields of a `LayerCache`, in its order among tensors of elements of one size.
_NAMES = {
    "keys": "key_pages",
    "values": "value_pages",
    "summaries": "summaries",
    "summary_scales": "summary_scales",
    "key_scales": "key_scales",
    "value_scales": "value_scales",
}


@dataclass(frozen=True)
class Piece:
    """One layer of one tensor of a snapshot: its index among the file's tensors, and its bytes."""

    tensor: int
    layer: int
    start: int
    end: int


class PageTransfer:
    """Reads and writes pages of `pool`.

    Args:
        pool: its cache is what a snapshot keeps.
    """

    def __init__(self, pool: PagePool) -> None:
        self._device = pool.device
        self.page_size = pool.page_size
        fields = [(name, getattr(pool.cache, field)) for name, field in _NAMES.items()]
        present = [(name, tensor) for name, tensor in fields if tensor is not None]
        # Widest first, as the file wants them.
        present.sort(key=lambda item: -TYPE_BYTES[_KINDS[item[1].dtype]])
        self._layouts = [(name, _KINDS[tensor.dtype], tuple(tensor.shape)) for name, tensor in present]
        # [layers, pages, bytes of a page]
        self._bytes = [tensor.view(torch.uint8).flatten(2) for _, tensor in present]
        self._arrays = [tensor.numpy() for tensor in self._bytes] if self._device.type == "cpu" else []
        self._of_thread = threading.local()

    def layout(self, num_pages: int) -> tuple[TensorLayout, ...]:
        """The tensors of so many pages."""
        return tuple(TensorLayout(name, kind, (shape[0], num_pages, *shape[2:])) for name, kind, shape in self._layouts)

    def pieces(self, num_pages: int) -> Iterator[Piece]:
        """All parts of so many pages, in the order of the file."""
        start = 0
        for tensor, store in enumerate(self._bytes):
            length = num_pages * store.shape[2]
            for layer in range(store.shape[0]):
                yield Piece(tensor, layer, start, start + length)
                start += length

    def describe(self) -> dict[str, Any]:
        """What decides how a page looks, for a key."""
        return {name: (kind, shape[0], *shape[2:]) for name, kind, shape in self._layouts}

    def mark(self) -> Any:
        """What has been launched so far on the engine's thread; pages that it frees may be in use until then."""
        if self._device.type != "cuda":
            return None
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))
        return event

    def read(self, piece: Piece, pages: Sequence[int], tokens_in_last: int, out: np.ndarray) -> None:
        """Copy a piece of `pages`.

        Args:
            pages: physical.
            tokens_in_last: tokens of the last page that count; what lies beyond, anybody's, comes out as zeros.
            out: uint8, of the piece's length.
        """
        rows = out.reshape(len(pages), -1)
        if self._device.type == "cpu":
            # Lets go of the interpreter, and starts no threads of its own.
            np.take(self._arrays[piece.tensor][piece.layer], np.asarray(pages), axis=0, out=rows, mode="clip")
        else:
            stream, _ = self._side()
            with torch.cuda.stream(stream):
                table = torch.tensor(pages, device=self._device)
                torch.from_numpy(rows).copy_(self._bytes[piece.tensor][piece.layer].index_select(0, table))
                stream.synchronize()
        name, _, shape = self._layouts[piece.tensor]
        if name in _BY_TOKEN:
            rows[-1].reshape(shape[2], self.page_size, -1)[:, tokens_in_last:] = 0

    def staging(self, num_bytes: int) -> np.ndarray:
        """uint8 memory of this thread for one piece; the same at each call."""
        memory = getattr(self._of_thread, "memory", None)
        if memory is None or memory.nbytes < num_bytes:
            memory = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
            self._of_thread.memory = memory
        return memory[:num_bytes].numpy()

    def write(self, piece: Piece, pages: Sequence[int], data: np.ndarray, after: Any) -> None:
        """Fill a piece of `pages`, which nobody else may use yet.

        Args:
            data: uint8, of the piece's length; free again on return.
            after: a `mark` from when the pages had been allocated.
        """
        rows = data.reshape(len(pages), -1)
        if self._device.type == "cpu":
            target = self._arrays[piece.tensor][piece.layer]
            if pages[-1] - pages[0] == len(pages) - 1 and list(pages) == list(range(pages[0], pages[-1] + 1)):
                target[pages[0] : pages[-1] + 1] = rows
            else:
                target[np.asarray(pages)] = rows
            return
        stream, waited = self._side()
        with torch.cuda.stream(stream):
            if waited is not after:
                stream.wait_event(after)
                self._of_thread.waited = after
            table = torch.tensor(pages, device=self._device)
            arrived = torch.from_numpy(rows).to(self._device, non_blocking=True)
            self._bytes[piece.tensor][piece.layer].index_copy_(0, table, arrived)
            stream.synchronize()

    def _side(self) -> tuple[torch.cuda.Stream, Any]:
        if getattr(self._of_thread, "stream", None) is None:
            self._of_thread.stream = torch.cuda.Stream(self._device)
            self._of_thread.waited = None
        return self._of_thread.stream, self._of_thread.waited
