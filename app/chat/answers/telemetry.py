"""What an answer is doing, for whoever watches: published per conversation, and its steps kept to go back to.

Watchers read at their own pace: of steps they get the latest, of everything else they miss nothing. Kept steps are
bounded and compressed. Knows nothing of HTTP; events are dictionaries ready for JSON, except that a step comes with its
page map as an array.
"""

from __future__ import annotations

import base64
import threading
import zlib
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

KEPT_STEPS = 1024

Event = dict[str, Any]


@dataclass(frozen=True)
class _Step:
    """A step event without its page map, and the map compressed (None if the step read everything)."""

    event: Event
    page_map: bytes | None

    @classmethod
    def pack(cls, event: Event) -> _Step:
        page_reads: np.ndarray | None = event["page_reads"]
        # Level 1: the maps are mostly zeros, and the next token should not wait.
        page_map = None if page_reads is None else zlib.compress(np.ascontiguousarray(page_reads).tobytes(), level=1)
        return cls({name: value for name, value in event.items() if name != "page_reads"}, page_map)

    def unpack(self) -> Event:
        page_map = self.page_map
        encoded = None if page_map is None else base64.b64encode(zlib.decompress(page_map)).decode("ascii")
        return {**self.event, "page_reads": encoded}


@dataclass
class _Channel:
    """One conversation: its watchers, the steps of its last answer by number, and that answer's end."""

    subscriptions: list[Subscription] = field(default_factory=list)
    steps: OrderedDict[int, _Step] = field(default_factory=OrderedDict)
    step_count: int = 0
    running: bool = False
    end: Event | None = None


class Subscription:
    """A watcher's queue. Close it, or the hub keeps filling it."""

    def __init__(self, hub: TelemetryHub, conversation_id: str) -> None:
        self._hub = hub
        self._conversation_id = conversation_id
        self._events: deque[Event | _Step] = deque()
        self._arrived = threading.Condition()
        self.closed = False

    def next(self, timeout_s: float) -> Event | None:
        """The next event, or None if none comes in time or the subscription is closed."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._events or self.closed, timeout=timeout_s)
            event = self._events.popleft() if self._events else None
        return event.unpack() if isinstance(event, _Step) else event

    def close(self) -> None:
        self._hub._unsubscribe(self._conversation_id, self)
        with self._arrived:
            self.closed = True
            self._arrived.notify_all()

    def _put(self, event: Event | _Step) -> None:
        with self._arrived:
            if isinstance(event, _Step) and self._events and isinstance(self._events[-1], _Step):
                self._events.pop()
            if self._events and self._events[-1] == event:
                # Nothing was told in between: once is enough.
                return
            self._events.append(event)
            self._arrived.notify_all()


class TelemetryHub:
    """Publish and subscribe, by conversation."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channels: dict[str, _Channel] = {}

    def open(self, conversation_id: str) -> None:
        """Begin to keep what is published of a conversation."""
        with self._lock:
            self._channels.setdefault(conversation_id, _Channel())

    def publish(self, conversation_id: str, event: Event) -> None:
        """Tell all watchers of an open conversation; what comes of one that is forgotten is dropped.

        Args:
            conversation_id: whose event it is.
            event: with "type" "queued", "prefill", "step" or "finished". A "step" has its number as "step" and its
                page map as "page_reads": uint8 [layers, pages] or None. The first event after "finished" begins a new
                answer, and the steps of the last one are dropped.
        """
        item = _Step.pack(event) if event["type"] == "step" else event
        with self._lock:
            channel = self._channels.get(conversation_id)
            if channel is None:
                return  # its last answer may still be ending
            if not channel.running:
                channel.steps.clear()
                channel.step_count, channel.end = 0, None
            channel.running = event["type"] != "finished"
            channel.end = None if channel.running else event
            if isinstance(item, _Step):
                self._keep(channel, item)
            for subscription in channel.subscriptions:
                subscription._put(item)

    def tell(self, conversation_id: str, event: Event) -> None:
        """Tell the watchers of a conversation of something that is no part of an answer, e.g. {"type": "changed"}."""
        with self._lock:
            channel = self._channels.get(conversation_id)
            for subscription in channel.subscriptions if channel else ():
                subscription._put(event)

    def tell_all(self, event: Event) -> None:
        """Tell all watchers of all conversations of something that concerns none of them, e.g. {"type": "library"}."""
        with self._lock:
            for channel in self._channels.values():
                for subscription in channel.subscriptions:
                    subscription._put(event)

    def _keep(self, channel: _Channel, step: _Step) -> None:
        number = step.event["step"]
        channel.steps[number] = step
        channel.step_count = number + 1
        while len(channel.steps) > KEPT_STEPS:
            channel.steps.popitem(last=False)

    def subscribe(self, conversation_id: str) -> Subscription:
        """Watch a conversation.

        If nothing runs, the first event is {"type": "idle", "steps": how many the last answer had}, with the "end" that
        was published of it, if there was any.
        """
        subscription = Subscription(self, conversation_id)
        with self._lock:
            channel = self._channels.get(conversation_id) or _Channel()
            channel.subscriptions.append(subscription)
            if not channel.running:
                end = {} if channel.end is None else {"end": channel.end}
                subscription._put({"type": "idle", "steps": channel.step_count, **end})
        return subscription

    def step(self, conversation_id: str, number: int) -> Event | None:
        """A step of the last answer, or None if it is not kept."""
        with self._lock:
            channel = self._channels.get(conversation_id)
            step = channel.steps.get(number) if channel else None
        return step.unpack() if step else None

    def forget(self, conversation_id: str) -> None:
        """Drop a conversation's steps and close its watchers' subscriptions."""
        with self._lock:
            channel = self._channels.pop(conversation_id, None)
        for subscription in channel.subscriptions if channel else ():
            subscription.close()

    def is_watched(self, conversation_id: str) -> bool:
        """Whether anybody is subscribed to a conversation."""
        with self._lock:
            channel = self._channels.get(conversation_id)
            return channel is not None and bool(channel.subscriptions)

    def _unsubscribe(self, conversation_id: str, subscription: Subscription) -> None:
        with self._lock:
            channel = self._channels.get(conversation_id)
            if channel and subscription in channel.subscriptions:
                channel.subscriptions.remove(subscription)
