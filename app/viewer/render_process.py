"""The process that renders PDF pages: `python -m app.viewer.render_process`.

Takes a JSON line on stdin a request, and answers each with a JSON line on stdout, which says how many bytes follow it,
what was wrong if anything was, and what the process has cost so far. It lives for many requests. It puts itself under
memory and CPU limits and ends with its parent, which watches the clock and kills it. What can be asked is said in
`page_rendering`.
"""

from __future__ import annotations

import json
import logging
import mmap
import sys
import time
from collections.abc import Callable
from typing import Any, BinaryIO

from app.limited_process import end_with_starter, limit_this_process

MEMORY_BYTES = 1 << 30
# Over the life of the process, which its parent replaces before.
CPU_S = 1200

Answer = Callable[[dict[str, Any]], tuple[dict[str, Any], bytes]]


def main() -> None:
    """Answer requests until stdin ends."""
    # What a library prints must not get between the answers.
    requests, answers, sys.stdout = sys.stdin.buffer, sys.stdout.buffer, sys.stderr
    logging.disable(logging.CRITICAL)
    end_with_starter()
    try:
        # Before the limits: libraries are trusted, and must not count against them.
        from app.viewer import page_rendering
    except ImportError:
        answer: Answer = _not_installed
    else:
        page_rendering.load_all()
        answer = _answer
    limit_this_process(MEMORY_BYTES, CPU_S)
    for line in requests:
        _write(answers, *answer(json.loads(line)))


def _answer(request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    from app.viewer.page_rendering import ANSWERS, Refusal

    try:
        return ANSWERS[request["kind"]](request)
    except Refusal as refusal:
        reason = str(refusal)
    except MemoryError:
        reason = "too_large"
    except Exception:
        # pypdfium2 and Pillow raise a handful of kinds on malformed files.
        reason = "damaged"
    return {"error": reason}, b""


def _not_installed(request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    return {"error": "not_installed"}, b""


def _write(answers: BinaryIO, answer: dict[str, Any], payload: bytes) -> None:
    answer |= {"bytes": len(payload), "cpu_s": int(time.process_time()), "memory_bytes": _memory_bytes()}
    answers.write(json.dumps(answer).encode() + b"\n" + payload)
    answers.flush()


def _memory_bytes() -> int:
    """The memory that this process has; 0 where that is not told."""
    # Not `getrusage`: what that calls the most it ever had is what its parent had when it was started.
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0


if __name__ == "__main__":
    main()
