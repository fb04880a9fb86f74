"""How much reading one document may cost, and how a process puts itself under those limits.

The wall clock is not enforced here: a process cannot be trusted to stop itself (`reader.py` kills it).
"""

from dataclasses import dataclass, fields

from app import limited_process

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class ReadLimits:
    """Limits on reading one document. The defaults are generous for real books.

    Attributes:
        memory_bytes: address space of the reader process (Linux; elsewhere it may have no effect).
        wall_clock_s: seconds from start to end, after which the reader process is killed; also its limit of CPU time.
        stall_s: seconds without a new page, after which it is killed: a hang need not last as long as a long book.
        file_bytes: size of the file.
        document_pages: pages of the document.
        text_characters: characters of text in all.
        unpacked_bytes: bytes unpacked from a zipped format.
    """

    memory_bytes: int = 2048 * MEBIBYTE
    wall_clock_s: float = 600.0
    stall_s: float = 60.0
    file_bytes: int = 200 * MEBIBYTE
    document_pages: int = 20_000
    text_characters: int = 100_000_000
    unpacked_bytes: int = 500 * MEBIBYTE

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) <= 0:
                raise ValueError(f"{field.name} must be positive, not {getattr(self, field.name)!r}")


def limit_this_process(limits: ReadLimits) -> None:
    """Put the calling process under the memory and CPU limits, for good, and forbid it to write files.

    Does nothing where the platform has no resource limits (Windows); the wall clock limit still holds there.

    Args:
        limits: what to allow.
    """
    # A little more than the wall clock allows: the parent's clear message should come first.
    limited_process.limit_this_process(limits.memory_bytes, int(limits.wall_clock_s) + 2)
