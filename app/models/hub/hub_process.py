"""The process that speaks with the hub: `python -m app.models.hub.hub_process`.

Takes one JSON line on stdin and answers with JSON lines on stdout. {"task": "look up", "model"} is answered with one
"model"; {"task": "download", "model", "plan", "folder", "pause_s"} with a "model" if `plan` is null, then "progress"
and "checking" with `done_bytes`, "waiting" with `message` and `pause_s` while the network is away, and "done" with
`place`. Both may end with "error", `reason` and `message` of a `HubError`. It ends with its parent, and to pause a
download is to kill it: nothing that the network or a disk does holds up whoever waits.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any, TextIO

from app.limited_process import end_with_starter
from app.models.hub.hub_cache import HubCache
from app.models.hub.hub_model import HubError, HubModel

# Answers come first: the network is slow enough.
_NICENESS = 5


def main() -> None:
    """Do what stdin asks for."""
    # What a library logs or prints must not get between the lines.
    answers, sys.stdout = sys.stdout, sys.stderr
    logging.disable(logging.CRITICAL)
    end_with_starter()
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    request = json.loads(sys.stdin.readline())

    def tell(**fields: Any) -> None:
        _tell(answers, fields)

    try:
        # They take half a second, and read the environment once.
        from app.models.hub.hub_requests import Unreachable

        try:
            if request["task"] == "look up":
                tell(kind="model", model=_look_up(request["model"]).to_json())
            else:
                _download(request, tell)
        except Unreachable as error:
            tell(kind="error", reason=error.reason, message=f"{error.message}. Check the network, and try again.")
    except HubError as error:
        tell(kind="error", reason=error.reason, message=error.message)
    except Exception as error:  # its text might hold addresses with keys
        message = f"The download failed on an error in Quest Chat ({type(error).__name__}). Try again."
        tell(kind="error", reason="failed", message=message)


def _look_up(model_id: str) -> HubModel:
    from app.models.hub.hub_requests import look_up

    return look_up(model_id)


def _download(request: dict[str, Any], tell: Any) -> None:
    from app.models.hub.hub_transfer import Transfer

    plan = request["plan"]
    model = HubModel.from_json(plan) if plan else _look_up(request["model"])
    if not plan:
        tell(kind="model", model=model.to_json())
    cache = HubCache(Path(request["folder"]))
    Transfer(model, cache, tell, request["pause_s"]).run()
    tell(kind="done", place=str(cache.add_snapshot(model)))


def _tell(answers: TextIO, fields: dict[str, Any]) -> None:
    answers.write(json.dumps(fields) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
