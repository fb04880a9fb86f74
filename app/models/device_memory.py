"""The memory that models are loaded into: the GPU's if they run there, else the main memory."""

from __future__ import annotations

from dataclasses import dataclass

# What a model may take of it: other programs want some, and what is left at the very edge is lost to swapping or to
# fragments.
USABLE_PART = {"cuda": 0.92, "cpu": 0.8}


@dataclass(frozen=True)
class DeviceMemory:
    """Memory for models.

    Args:
        device: "cuda" or "cpu".
        name: for people.
        total_bytes: that it has.
        free_bytes: now.
        held_bytes: of the model that is loaded, which go with it.
    """

    device: str
    name: str
    total_bytes: int
    free_bytes: int
    held_bytes: int = 0

    @property
    def is_gpu(self) -> bool:
        """Whether it is a GPU's."""
        return self.device == "cuda"

    @property
    def usable_bytes(self) -> int:
        """What another model may take once the present one has gone."""
        return int(min(self.total_bytes, self.free_bytes + self.held_bytes) * USABLE_PART[self.device])


def device_memory(device: str, held_bytes: int | None = None) -> DeviceMemory:
    """What there is.

    Args:
        device: as in the settings: "auto", "cuda" or "cpu".
        held_bytes: of the model that is loaded; None takes all that this process holds.

    Raises:
        ModelError: if the device that is asked for is not there.
    """
    # Brings torch, which the page must not wait for.
    from quest_core.engine import choose_device, device_name
    from quest_core.model.weights import free_memory_bytes

    chosen = choose_device(device)
    if chosen.type == "cuda":
        import torch

        allocated = torch.cuda.memory_allocated(chosen)
        # What torch keeps of freed memory it gives to the next model.
        kept = torch.cuda.memory_reserved(chosen) - allocated
        total = torch.cuda.mem_get_info(chosen)[1]
        held = allocated if held_bytes is None else held_bytes
        return DeviceMemory("cuda", device_name(chosen), total, free_memory_bytes(chosen) + kept, held)
    import psutil

    held = psutil.Process().memory_info().rss if held_bytes is None else held_bytes
    return DeviceMemory("cpu", "this computer", psutil.virtual_memory().total, free_memory_bytes(chosen), held)
