"""One download: how far it is, how fast, and what is said of it. Keeps no thread and touches no file."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from app.models.hub.hub_cache import HubCache
from app.models.hub.hub_model import HubModel, split_model_id

_ACTIVE = ("queued", "starting", "downloading", "checking", "waiting")
# The speed is that of so long.
_SPEED_S = 8.0
_LEAST_SPEED_S, _LEAST_SPEED_BYTES = 1.0, 128 << 10


class HubDownload:
    """A download of the model `model_id`.

    Attributes:
        state: "new", "queued", "starting", "downloading", "checking" (what an earlier run has left), "waiting" (for the
            network), "paused", "failed", "done" or "cancelled".
        plan: what is downloaded; None until the hub has said it.
        is_removed: whether what is there of it is to be removed.
    """

    def __init__(self, model_id: str, plan: HubModel | None = None) -> None:
        self.model_id = model_id
        self.plan = plan
        self.state = "new"
        self.is_removed = False
        self._message = self._reason = self._place = ""
        self._done_bytes = 0
        self._retry_at: float | None = None
        self._arrivals: deque[tuple[float, int]] = deque()

    @property
    def is_active(self) -> bool:
        """Whether it runs, or will without being asked."""
        return self.state in _ACTIVE

    def be(self, state: str, message: str = "", reason: str = "") -> None:
        """Take another state, for the reason that `HubError` names."""
        self.state, self._message, self._reason = state, message, reason
        self._retry_at = None
        if state != "downloading":
            self._arrivals.clear()

    def hear(self, told: dict[str, Any]) -> None:
        """Take over what `hub_process` tells."""
        kind, now = told["kind"], time.monotonic()
        self._done_bytes = told.get("done_bytes", self._done_bytes)
        if kind == "model":
            self.plan = HubModel.from_json(told["model"])
        elif kind == "waiting":
            self.be("waiting", told["message"])
            self._retry_at = now + told["pause_s"]
        elif kind == "done":
            self.be("done")
            self._place = told["place"]
            self._done_bytes = self.plan.total_bytes if self.plan else self._done_bytes
        else:
            state = "checking" if kind == "checking" else "downloading"
            if self.state != state:
                self.be(state)
            self._arrivals.append((now, self._done_bytes))
            while now - self._arrivals[0][0] > _SPEED_S:
                self._arrivals.popleft()

    def to_listing(self) -> dict[str, Any]:
        """What the page shows: "model", "state", "done_bytes", "total_bytes" (0 if unknown), "bytes_per_s" and
        "remaining_s" (None if unknown), "retry_s" until it tries again (None if it does not wait), "message",
        "reason", "licence", and "place", what a finished one is loaded from: a hub id or the path of a GGUF file.
        """
        total = self.plan.total_bytes if self.plan else 0
        speed = self._bytes_per_s()
        retry_s = None if self._retry_at is None else max(0.0, self._retry_at - time.monotonic())
        return {
            "model": self.model_id,
            "state": self.state,
            "done_bytes": self._done_bytes,
            "total_bytes": total,
            "bytes_per_s": speed,
            "remaining_s": (total - self._done_bytes) / speed if speed and total else None,
            "retry_s": retry_s,
            "message": self._message,
            "reason": self._reason,
            "licence": self.plan.licence if self.plan else "",
            "place": self._place if split_model_id(self.model_id)[1] else self.model_id,
        }

    def _bytes_per_s(self) -> float | None:
        if self.state != "downloading" or len(self._arrivals) < 2:
            return None
        (began, first), (ended, last) = self._arrivals[0], self._arrivals[-1]
        # Small files come first, each with a question of its own: they tell nothing of the speed.
        is_known = ended - began >= _LEAST_SPEED_S and last - first >= _LEAST_SPEED_BYTES
        return (last - first) / (ended - began) if is_known else None

    def to_json(self) -> dict[str, Any]:
        """For `from_json`."""
        plan = self.plan.to_json() if self.plan else None
        return {"model": self.model_id, "plan": plan, "state": self.state, "message": self._message}

    @classmethod
    def from_json(cls, values: dict[str, Any], cache: HubCache) -> HubDownload:
        """A download of an earlier run, as far as its files in the cache are: paused, or failed as it was.

        Raises:
            ValueError, KeyError, TypeError: it is none.
            HubError: its id is none.
        """
        split_model_id(values["model"])
        download = cls(values["model"], HubModel.from_json(values["plan"]) if values["plan"] else None)
        if download.plan is not None:
            download._done_bytes = cache.present_bytes(download.plan)
        if values["state"] == "failed":
            download.be("failed", str(values["message"]))
        else:
            download.be("paused", "" if values["state"] == "paused" else "Quest Chat was closed meanwhile.")
        return download
