"""How much memory a model may have on this machine: the GPU's if it runs there, else the main memory."""

from __future__ import annotations

from dataclasses import dataclass

# Other programs want some, and what is left at the very edge is lost to swapping or to fragments.
_GPU_SHARE, _MAIN_SHARE = 0.92, 0.8


@dataclass(frozen=True)
class MachineMemory:
    """Memory for a model.

    Args:
        usable_bytes: free now, with what the present model has, which goes when another is loaded.
        total_bytes: built in.
        is_gpu: whether it is a GPU's.
        name: of the GPU; "" for the main memory.
    """

    usable_bytes: int
    total_bytes: int
    is_gpu: bool
    name: str = ""


def machine_memory(device: str) -> MachineMemory:
    """What there is.

    Args:
        device: as in the settings: "auto", "cuda" or "cpu".
    """
    if device != "cpu":
        import torch

        if torch.cuda.is_available():
            free, total = torch.cuda.mem_get_info(0)
            usable = min(total, free + torch.cuda.memory_reserved(0))
            return MachineMemory(int(usable * _GPU_SHARE), total, True, torch.cuda.get_device_name(0))
    import psutil

    memory = psutil.virtual_memory()
    usable = min(memory.total, memory.available + psutil.Process().memory_info().rss)
    return MachineMemory(int(usable * _MAIN_SHARE), memory.total, False)
