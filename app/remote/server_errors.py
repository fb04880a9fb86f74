"""What went wrong with another engine, in plain sentences that name its address.

Knows status codes and the shapes that servers give their errors; nothing of who asked.
"""

from __future__ import annotations

import json
import re
import ssl
from typing import Any, Literal

from app.errors import UserFacingError
from app.remote.server_address import ServerAddress

ErrorKind = Literal[
    "unreachable", "silent", "key", "model", "context", "busy", "broken", "cut", "stranger", "moved", "refused"
]
_MOST_SHOWN_CHARACTERS = 300
_TOO_LONG = re.compile(
    r"context[ _](length|window|size)|maximum context|max_model_len|n_ctx|too (long|large|many tokens)"
    r"|exceeds? .*context",
    re.IGNORECASE,
)


class ServerError(UserFacingError):
    """Another engine could not be asked, or has failed.

    Args:
        kind: what went wrong.
        problem: a sentence that says it.
        advice: what whoever has asked can do; "" for nothing.
        said: what the server itself said of it; "" for nothing.
        quotes: whether the message tells what it said.
    """

    def __init__(self, kind: ErrorKind, problem: str, advice: str = "", said: str = "", quotes: bool = False) -> None:
        self.quoted = f'It says: "{said}"' if quotes and said else ""
        super().__init__(" ".join(filter(None, (problem, advice, self.quoted))))
        self.kind = kind
        self.problem = problem
        self.said = said

    @property
    def may_pass(self) -> bool:
        """Whether asking later may help, without anybody changing anything here."""
        return self.kind in ("unreachable", "silent", "busy", "broken")

    def while_asked_again(self, every_s: float) -> str:
        """What to tell of a server that is asked again by itself, without anybody doing anything.

        Args:
            every_s: seconds between two times.
        """
        again = f"It is asked again every {every_s:.0f} seconds, by itself."
        return " ".join(filter(None, (self.problem, again, self.quoted)))


def unreachable(address: ServerAddress, cause: BaseException) -> ServerError:
    """Nobody answers there, or no connection can be trusted.

    Args:
        address: that was asked.
        cause: the error of the connection.
    """
    if (fault := _tls_fault(cause)) is not None:
        if isinstance(fault, ssl.SSLCertVerificationError):
            return ServerError(
                "stranger",
                f"The certificate of {address.shown} is not trusted: {fault.verify_message}.",
                "Name the file of its authority in the environment variable SSL_CERT_FILE, and start again.",
            )
        return ServerError(
            "stranger", f"{address.shown} does not speak https as it should.", "Name it with http:// if it speaks that."
        )
    return ServerError(
        "unreachable", f"{address.shown} cannot be reached.", "See that the engine runs there, and ask again."
    )


def _tls_fault(error: BaseException | None) -> ssl.SSLError | None:
    """The fault of a certificate or of TLS that an error comes from."""
    seen = 0
    while error is not None and seen < 10:
        if isinstance(error, ssl.SSLError):
            return error
        error, seen = error.__cause__ or error.__context__, seen + 1
    return None


def silent(address: ServerAddress, silence_s: float) -> ServerError:
    """It was asked, and has said nothing for too long."""
    return ServerError(
        "silent", f"{address.shown} has said nothing for {silence_s:.0f} seconds.", "See what it does, and ask again."
    )


def cut_off(address: ServerAddress) -> ServerError:
    """It has begun to answer, and is gone."""
    return ServerError(
        "cut",
        f"{address.shown} has broken off in the middle of its answer. What it said is kept.",
        "See that it still runs, and ask again.",
    )


def stranger(address: ServerAddress, what: str) -> ServerError:
    """Something answers there that is no such server.

    Args:
        address: that was asked.
        what: what it did, e.g. "answers with a web page".
    """
    return ServerError(
        "stranger",
        f"{address.shown} {what}: it does not speak OpenAI's API.",
        "Check --engine-url; the address of vLLM, SGLang and llama.cpp ends before /v1 or with it.",
    )


def moved(address: ServerAddress, target: str) -> ServerError:
    """It sends to another address, to which no key and no question is sent along."""
    where = f" to {target}" if target else ""
    return ServerError(
        "moved", f"{address.shown} redirects{where}.", "If that is the engine, give that address with --engine-url."
    )


def of_status(address: ServerAddress, status: int, body: bytes, model: str = "") -> ServerError:
    """What a status code other than 200 means.

    Args:
        address: that was asked.
        status: the code.
        body: what came with it.
        model: that was asked for.
    """
    said = said_by(address, body)
    if status in (401, 403):
        return ServerError(
            "key",
            f"{address.shown} does not accept the key.",
            "Start with the right one in QUEST_CHAT_ENGINE_KEY.",
            said,
        )
    if status in (404, 400) and "model" in said.lower() and re.search(r"not (exist|found)|unknown|no such", said, re.I):
        advice = "Name one of its own with --engine-model."
        return ServerError("model", f"{address.shown} has no model {model!r}.", advice, said, quotes=True)
    if status in (400, 413, 422) and _TOO_LONG.search(said):
        advice = "The next one will be shorter: ask again, or set a smaller --context-tokens."
        return ServerError("context", f"The prompt is longer than {address.shown} takes.", advice, said, quotes=True)
    if status in (404, 405):
        return stranger(address, f"has nothing at this address (status {status})")
    if status in (429, 503):
        problem = f"{address.shown} is too busy (status {status})."
        return ServerError("busy", problem, "Ask again later.", said, quotes=True)
    if status >= 500:
        problem = f"{address.shown} has failed on an error of its own (status {status})."
        return ServerError("broken", problem, "Ask again.", said, quotes=True)
    problem = f"{address.shown} refuses the question (status {status})."
    return ServerError("refused", problem, said=said, quotes=True)


def said_by(address: ServerAddress, body: bytes) -> str:
    """The server's own words in an error's body, on one line and without the key; "" if there are none."""
    text = body.decode("utf-8", "replace")
    try:
        text = message_in(json.loads(text))
    except (ValueError, RecursionError):
        text = "" if "<" in text else text
    text = " ".join(address.without_key(text).split())
    return text if len(text) <= _MOST_SHOWN_CHARACTERS else text[: _MOST_SHOWN_CHARACTERS - 1] + "…"


def message_in(values: Any) -> str:
    """The message in an error's JSON; servers put it at different places."""
    for name in ("error", "detail", "message"):
        if isinstance(values, dict) and name in values:
            values = values[name]
    if isinstance(values, list) and values:
        return message_in({"message": values[0].get("msg", values[0])} if isinstance(values[0], dict) else values[0])
    if isinstance(values, dict):
        values = values.get("msg", "")
    return values if isinstance(values, str) else ""
