"""Whether a decode step reads everything or chooses pages first: by the bytes that each would read, and what choosing
costs on the device.

Costs are in bytes of keys and values: as many as the device attends to in the same time. So they hold for shapes that
they were not measured with; docs/kernels.md says what they come from. Knows nothing of tensors: whoever asks counts the
bytes.
"""

from __future__ import annotations

from typing import NamedTuple


class ChoosingCosts(NamedTuple):
    """What choosing pages and attending to them costs in one layer.

    Args:
        step_bytes: whatever the length.
        head_bytes: for each kv head, whatever the length.
        page_bytes: for each page that is ranked, whatever its summary's size, up to `MANY_PAGES`.
        further_page_bytes: for each page more.
        summary_factor: times the bytes of all summaries.
        selected_factor: times the bytes of the keys and values that are selected, which lie scattered.
    """

    step_bytes: int = 0
    head_bytes: int = 0
    page_bytes: int = 0
    further_page_bytes: int = 0
    summary_factor: float = 1.0
    selected_factor: float = 1.0


# From here on a page more costs less: its neighbours stand for it.
MANY_PAGES = 8192
# Besides the bytes, selecting on a GPU is launches that wait for each other, and passes over a head's pages.
_GPU_COSTS = ChoosingCosts(step_bytes=20_000_000, page_bytes=4_200, further_page_bytes=600, summary_factor=1.4)
# On the CPU tracing what was selected costs a step as much in a layer, whatever the shape, and selecting as much for
# each kv head.
_CPU_STEP_BYTES, _CPU_HEAD_BYTES = 100_000, 175_000
_CPU_SUMMARY_FACTOR = 3.0
# On the CPU a selected token costs more than one of many in a row by what its memory does, which shows the more the
# fewer query heads compute with it.
_CPU_SELECTED_FACTOR, _CPU_SCATTERED_FACTOR = 1.2, 0.55


def costs_for(device_type: str, group: int) -> ChoosingCosts:
    """The costs on a device.

    Args:
        device_type: "cuda" or "cpu".
        group: query heads that share a kv head.
    """
    if device_type == "cuda":
        return _GPU_COSTS
    selected_factor = _CPU_SELECTED_FACTOR + _CPU_SCATTERED_FACTOR / group
    return ChoosingCosts(_CPU_STEP_BYTES, _CPU_HEAD_BYTES, 0, 0, _CPU_SUMMARY_FACTOR, selected_factor)


class LayerBytes(NamedTuple):
    """Bytes of the cache in one layer.

    Args:
        dense: keys and values of all tokens.
        selected: those of the token budget.
        summaries: of all pages.
        kv_heads: that these are of.
    """

    dense: int
    selected: int
    summaries: int
    kv_heads: int


def reading_all_is_not_slower(costs: ChoosingCosts, read: LayerBytes, ranked_pages: int) -> bool:
    """Whether dense attention is expected to take no longer than Quest.

    Args:
        costs: of the device.
        read: what either would read.
        ranked_pages: among how many pages Quest would choose; where the page table is longer than the sequence, all of
            the table's.
    """
    choosing = costs.step_bytes + read.kv_heads * costs.head_bytes + costs.summary_factor * read.summaries
    choosing += min(ranked_pages, MANY_PAGES) * costs.page_bytes
    choosing += max(0, ranked_pages - MANY_PAGES) * costs.further_page_bytes
    return read.dense <= costs.selected_factor * read.selected + choosing
