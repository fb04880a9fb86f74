"""How often a key may be guessed: so many wrong ones a minute from an address, and so many in all.

An address from which the right key came is not held up by what others try. What is remembered is bounded. Knows nothing
of keys or requests; one thread, the server's.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable

TRIES_OF_AN_ADDRESS = 10
TRIES_IN_ALL = 100
WINDOW_S = 60.0
_MOST_ADDRESSES = 4096


class Tries:
    """The wrong keys of the last minute.

    Args:
        clock: for tests; seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # The times of an address's wrong keys, oldest first; the address whose last one is longest ago first.
        self._by_address: OrderedDict[str, deque[float]] = OrderedDict()
        self._in_all: deque[float] = deque(maxlen=TRIES_IN_ALL)
        self._known: OrderedDict[str, None] = OrderedDict()

    def wait_s(self, address: str) -> int:
        """For how many seconds no key of that address is looked at; 0 if one is now."""
        now, address = self._clock(), _place(address)
        own = self._by_address.get(address, ())
        until = 0.0
        if len(own) == TRIES_OF_AN_ADDRESS:
            until = own[0] + WINDOW_S
        if len(self._in_all) == TRIES_IN_ALL and address not in self._known:
            until = max(until, self._in_all[0] + WINDOW_S)
        return max(0, math.ceil(until - now))

    def add_wrong(self, address: str) -> None:
        """A wrong key came from there."""
        now, address = self._clock(), _place(address)
        own = self._by_address.setdefault(address, deque(maxlen=TRIES_OF_AN_ADDRESS))
        own.append(now)
        self._in_all.append(now)
        self._by_address.move_to_end(address)
        if len(self._by_address) > _MOST_ADDRESSES:
            self._by_address.popitem(last=False)

    def add_right(self, address: str) -> None:
        """The key came from there."""
        address = _place(address)
        self._known[address] = None
        self._known.move_to_end(address)
        if len(self._known) > _MOST_ADDRESSES:
            self._known.popitem(last=False)


def _place(address: str) -> str:
    """What counts as one address: of IPv6 its network, in which a machine may choose among as many as it likes."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if ip.version == 4:
        return str(ip)
    return str(ip.ipv4_mapped or ipaddress.ip_network((int(ip), 64), strict=False))
