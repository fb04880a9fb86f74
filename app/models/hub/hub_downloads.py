"""Downloads of models from the hub: one at a time and the others in a queue, paused, resumed and cancelled at once.

What is under way is kept in a file, so that it can be resumed after a restart: the parts lie in the hub's cache. Speaks
with the hub through a process of its own (`hub_process`), which is killed to pause. Knows nothing of the page.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.chat.change_notices import ChangeNotices
from app.errors import UserFacingError
from app.models.hub.hub_cache import HubCache
from app.models.hub.hub_connection import HubConnection
from app.models.hub.hub_download import HubDownload
from app.models.hub.hub_model import HubError, HubModel, split_model_id

OFFLINE = (
    "Quest Chat is offline (--offline, or HF_HUB_OFFLINE is set), so nothing can be downloaded. Start it without, or "
    "copy a model's folder or .gguf file to this machine."
)
_LOOK_UP_S = 25.0
_MOST_DOWNLOADS, _MOST_LOOK_UPS = 50, 2


class HubDownloads:
    """The downloads of one run of the app.

    Args:
        file: where they are kept for the next run; None keeps none.
        offline: ask the hub nothing.
        tell: is called after changes, a few times a second at most, from a thread of this object.
        cache: where models are put; None for the hub's own.
        pause_s: before the first new attempt where the network is lost.
    """

    def __init__(
        self,
        file: Path | None,
        offline: bool,
        tell: Callable[[], None],
        cache: HubCache | None = None,
        pause_s: float = 1.0,
    ) -> None:
        self._file = file
        self._offline = offline
        self._given_cache = cache
        self._pause_s = pause_s
        self._notices = ChangeNotices(tell)
        self._lock = threading.RLock()
        self._wanted = threading.Condition(self._lock)
        self._look_ups = threading.BoundedSemaphore(_MOST_LOOK_UPS)
        self._downloads: dict[str, HubDownload] | None = None
        self._connection: HubConnection | None = None
        self._running: HubDownload | None = None
        # Whether the process that runs was ended from here: what it tells afterwards is of no account.
        self._was_ended = False
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def cache(self) -> HubCache:
        """Where models are put."""
        if self._given_cache is None:
            self._given_cache = HubCache.default()
        return self._given_cache

    @property
    def refusal(self) -> str:
        """Why nothing can be downloaded; "" if it can be tried."""
        from huggingface_hub import is_offline_mode

        return OFFLINE if self._offline or is_offline_mode() else ""

    def look_up(self, model_id: str) -> HubModel:
        """Ask the hub about a model.

        Raises:
            UserFacingError: it cannot be downloaded, or the hub does not answer in time.
        """
        self._check(model_id)
        if not self._look_ups.acquire(timeout=_LOOK_UP_S):
            raise UserFacingError("Other models are being looked up. Try again in a moment.")
        try:
            with HubConnection({"task": "look up", "model": model_id}) as connection:
                return HubModel.from_json(connection.next(_LOOK_UP_S)["model"])
        except HubError as error:
            raise UserFacingError(error.message) from error
        finally:
            self._look_ups.release()

    def start(self, model_id: str) -> None:
        """Download a model, after those that wait already; one that was paused goes on where it was.

        Raises:
            UserFacingError: it cannot even be tried.
        """
        self._check(model_id)
        with self._lock:
            downloads = self._known()
            if model_id not in downloads and len(downloads) >= _MOST_DOWNLOADS:
                raise UserFacingError(f"There are {_MOST_DOWNLOADS} downloads already. Cancel some first.")
            download = downloads.setdefault(model_id, HubDownload(model_id))
            if download.is_active:
                return
            download.be("queued")
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="model-downloads", daemon=True)
                self._thread.start()
            self._wanted.notify_all()
            self._changed()

    def pause(self, model_id: str) -> None:
        """Stop a download; what is there of it stays."""
        with self._lock:
            download = self._find(model_id)
            if download.is_active:
                download.be("paused")
                self._end_if_running(download)
                self._changed()

    def cancel(self, model_id: str, keep: bool) -> None:
        """Take a download off the list.

        Args:
            model_id: which.
            keep: leave what is there of it, for another time; a model that is complete stays in any case.
        """
        with self._lock:
            download = self._find(model_id)
            was_running = self._end_if_running(download)
            del self._known()[model_id]
            download.is_removed = not keep and download.state != "done"
            download.be("cancelled")
            if not was_running:
                self._remove_parts(download)
            self._changed()

    def listing(self) -> list[dict[str, Any]]:
        """All downloads, in the order in which they were begun; see `HubDownload.to_listing`."""
        with self._lock:
            return [download.to_listing() for download in self._known().values()]

    def close(self) -> None:
        """Stop the one that runs; the next run of the app can resume it."""
        with self._lock:
            self._closed = True
            if self._connection is not None:
                self._connection.end()
            self._wanted.notify_all()
        self._notices.close()

    def _check(self, model_id: str) -> None:
        if self.refusal:
            raise UserFacingError(self.refusal)
        try:
            split_model_id(model_id)
        except HubError as error:
            raise UserFacingError(error.message) from error

    def _find(self, model_id: str) -> HubDownload:
        download = self._known().get(model_id)
        if download is None:
            raise UserFacingError("This download is not in the list any more.")
        return download

    def _end_if_running(self, download: HubDownload) -> bool:
        if download is not self._running:
            return False
        self._was_ended = True
        if self._connection is not None:
            self._connection.end()
        return True

    # The thread that downloads

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._closed and self._next() is None:
                    self._wanted.wait()
                if self._closed:
                    return
                download = self._running = self._next()
                self._was_ended = False
                download.be("starting")
                self._changed()
            try:
                self._download(download)
            except HubError as error:
                with self._lock:
                    if not self._was_ended and not self._closed:
                        download.be("failed", error.message, error.reason)
            finally:
                with self._lock:
                    self._running = self._connection = None
                    self._remove_parts(download)
                    self._changed()

    def _next(self) -> HubDownload | None:
        return next((one for one in self._known().values() if one.state == "queued"), None)

    def _download(self, download: HubDownload) -> None:
        plan = download.plan.to_json() if download.plan else None
        request = {"task": "download", "model": download.model_id, "plan": plan, "pause_s": self._pause_s}
        with HubConnection(request | {"folder": str(self.cache.folder)}) as connection:
            with self._lock:
                if self._was_ended or self._closed:
                    return
                self._connection = connection
            kind = ""
            while kind != "done":
                told = connection.next(None)
                kind = told["kind"]
                with self._lock:
                    if self._was_ended:
                        return
                    download.hear(told)
                    self._changed(keep=kind in ("model", "done"))

    def _remove_parts(self, download: HubDownload) -> None:
        if download.is_removed and download.plan is not None:
            # What cannot be removed now does no harm.
            with suppress(OSError):
                self.cache.remove_parts(download.plan)

    # What the next run must know

    def _changed(self, keep: bool = True) -> None:
        self._notices.note()
        if keep and self._file is not None:
            kept = [download.to_json() for download in self._known().values() if download.state != "done"]
            written = self._file.with_name(f"{self._file.name}.{os.getpid()}.tmp")
            # Without it a download must be begun anew, and goes on all the same with the parts that are there.
            with suppress(OSError):
                written.write_text(json.dumps({"downloads": kept}, indent=1), encoding="utf-8")
                written.replace(self._file)

    def _known(self) -> dict[str, HubDownload]:
        if self._downloads is None:
            self._downloads = {}
            if self._file is not None:
                with suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, HubError):
                    kept = json.loads(self._file.read_text(encoding="utf-8"))["downloads"][:_MOST_DOWNLOADS]
                    downloads = [HubDownload.from_json(one, self.cache) for one in kept]
                    self._downloads = {download.model_id: download for download in downloads}
        return self._downloads
