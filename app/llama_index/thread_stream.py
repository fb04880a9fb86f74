"""An answer made in a thread of its own, for those who await it.

Not in the event loop's pool of threads: answers wait for each other, and a few of them would keep all of its threads
from whatever else the program does there.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from typing import TypeVar

from app.chat.completions import Completion

_Item = TypeVar("_Item")


async def stream_in_thread(
    begin: Callable[[], Completion], items: Callable[[Completion], Iterator[_Item]]
) -> AsyncGenerator[_Item, None]:
    """Yield what `items` makes of a completion. Whoever leaves before its end stops the completion, begun or not.

    Args:
        begin: begins it; may wait.
        items: follows it to its end; may wait for each.
    """
    loop, told = asyncio.get_running_loop(), asyncio.Queue()
    lock, begun, left = threading.Lock(), [], threading.Event()

    def tell(item: _Item | None, error: BaseException | None = None) -> None:
        # A loop that is closed has nobody left who waits.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(told.put_nowait, (item, error))

    def run() -> None:
        try:
            completion = begin()
            with lock:
                begun.append(completion)
            if left.is_set():
                completion.cancel()
            for item in items(completion):
                tell(item)
            tell(None)
        except BaseException as error:  # it belongs to whoever awaits
            tell(None, error)

    threading.Thread(target=run, name="llama-index-answer", daemon=True).start()
    try:
        while True:
            item, error = await told.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        left.set()
        with lock:
            for completion in begun:
                completion.cancel()
