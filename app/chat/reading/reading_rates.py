"""How fast models read on this machine: as measured in this run, or the last time one did.

Kept in a small file of the data folder. Measured by `app.chat.reading.prefill_timer`; knows nothing of documents.
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from app.chat.reading.prefill_timer import PrefillRates

RATES_FILE = "reading-rates.json"
# A measurement over less than this part of an older one's length says less of long texts.
_COMPARABLE_SHARE = 0.5
# What is estimated for more than so many times the measured length is a lower bound: attention grows with the length,
# and a short prefill hardly shows it.
_FORESEEABLE_FACTOR = 4
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReadingTime:
    """How long a model takes to read a text.

    Args:
        seconds: by the rates that are known.
        is_least: whether it may be far more: only much shorter texts were measured.
        is_of_this_run: whether it was measured since the program was started.
    """

    seconds: float
    is_least: bool
    is_of_this_run: bool


class ReadingRates:
    """Rates by model; safe to call from any thread.

    Args:
        path: the file that keeps them.
        is_written: whether what is measured now is kept there.
    """

    def __init__(self, path: Path, is_written: bool = True) -> None:
        self._path = path
        self._is_written = is_written
        self._lock = threading.Lock()
        self._of_this_run: set[str] = set()
        self._rates = _read(path)

    def note(self, model: str, rates: PrefillRates | None) -> None:
        """Keep what was measured.

        Args:
            model: names the model, how it is loaded, and the device: all that makes it faster or slower.
            rates: None if too little was measured.
        """
        if rates is None:
            return
        with self._lock:
            before = self._rates.get(model)
            if before is not None and rates.measured_tokens < _COMPARABLE_SHARE * before.measured_tokens:
                return
            self._rates[model] = rates
            self._of_this_run.add(model)
            self._write()

    def estimate(self, model: str, tokens: int) -> ReadingTime | None:
        """How long a model will take for so many tokens; None if it was never measured here."""
        with self._lock:
            rates, is_of_this_run = self._rates.get(model), model in self._of_this_run
        if rates is None:
            return None
        is_least = tokens > _FORESEEABLE_FACTOR * rates.measured_tokens
        return ReadingTime(rates.seconds(tokens), is_least, is_of_this_run)

    def _write(self) -> None:
        if not self._is_written:
            return
        partial = self._path.with_suffix(".partial")
        try:
            kept = {model: asdict(rates) for model, rates in self._rates.items()}
            partial.write_text(json.dumps(kept, indent=1), encoding="utf-8")
            os.replace(partial, self._path)
        except OSError as error:
            # Measured again the next time.
            _log.info("how fast the model reads is not noted: %s", error)
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, PrefillRates]:
    """What the file keeps; whatever is not as it was written is left out."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return {model: rates for model, values in kept.items() if (rates := _rates_from(values)) is not None}
    except (OSError, ValueError, AttributeError):
        return {}


def _rates_from(values: object) -> PrefillRates | None:
    try:
        rates = PrefillRates(
            float(values["per_token_s"]), float(values["per_attended_s"]), int(values["measured_tokens"])
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    seconds = (rates.per_token_s, rates.per_attended_s)
    is_sound = all(math.isfinite(one) and one >= 0 for one in seconds) and sum(seconds) > 0
    return rates if is_sound and rates.measured_tokens > 0 else None
