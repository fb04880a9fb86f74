"""Replies in OpenAI's shapes: whole ones, and the chunks of a stream.

Knows nothing of how they are sent.
"""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from app.api.answers import Delta, Outcome, TokenText
from app.api.requests import ApiRequest


def event(data: dict[str, Any]) -> bytes:
    """One event of a stream."""
    return f"data: {json.dumps(data)}\n\n".encode()


DONE = b"data: [DONE]\n\n"
STILL_HERE = b": still here\n\n"


class ChatReply:
    """Of /v1/chat/completions.

    Args:
        request: what is answered.
        model: the name that the reply says.
    """

    def __init__(self, request: ApiRequest, model: str) -> None:
        self._request = request
        self._stamp = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._tokens: list[dict[str, Any]] = []

    def first(self) -> dict[str, Any]:
        """The chunk that begins a stream."""
        return self._chunk({"role": "assistant", "content": ""})

    def add(self, delta: Delta) -> dict[str, Any] | None:
        """Take what is new; returns its chunk, None if it shows nothing."""
        self._text.append(delta.text)
        self._thinking.append(delta.thinking)
        tokens = [] if delta.token is None else [_chat_token(delta)]
        self._tokens += tokens
        shown = {"reasoning_content": delta.thinking} if delta.thinking else {}
        if delta.text or not shown:
            shown["content"] = delta.text
        return self._chunk(shown, tokens) if delta.text or delta.thinking or tokens else None

    def last(self, outcome: Outcome) -> list[dict[str, Any]]:
        """The chunks that end a stream."""
        chunks = [{**self._chunk({}, finish_reason=outcome.finish_reason), **outcome.extra}]
        if self._request.include_usage:
            chunks.append({**self._stamp, "object": "chat.completion.chunk", "choices": [], "usage": usage(outcome)})
        return chunks

    def whole(self, outcome: Outcome) -> dict[str, Any]:
        """The reply that is no stream."""
        message = {"role": "assistant", "content": "".join(self._text), "refusal": None}
        if thinking := "".join(self._thinking):
            message["reasoning_content"] = thinking
        return {
            **self._stamp,
            "object": "chat.completion",
            "choices": [
                {
                    "index": 0,
                    "message": message,
                    "logprobs": self._logprobs(self._tokens),
                    "finish_reason": outcome.finish_reason,
                }
            ],
            "usage": usage(outcome),
            **outcome.extra,
        }

    def _chunk(
        self, delta: dict[str, Any], tokens: list[dict[str, Any]] | None = None, finish_reason: str | None = None
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": self._logprobs(tokens), "finish_reason": finish_reason}
        chunk = {**self._stamp, "object": "chat.completion.chunk", "choices": [choice]}
        return {**chunk, "usage": None} if self._request.include_usage else chunk

    def _logprobs(self, tokens: list[dict[str, Any]] | None) -> dict[str, Any] | None:
        if self._request.top_logprobs is None or tokens is None:
            return None
        return {"content": tokens, "refusal": None}


class TextReply:
    """Of /v1/completions; arguments and methods as of `ChatReply`. A thought is part of the text's tokens alone."""

    def __init__(self, request: ApiRequest, model: str) -> None:
        self._request = request
        stamp = {"id": f"cmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        self._stamp = {**stamp, "object": "text_completion"}
        self._text: list[str] = []
        self._tokens: list[tuple[Delta, int]] = []
        self._characters = 0

    def first(self) -> dict[str, Any] | None:
        return None

    def add(self, delta: Delta) -> dict[str, Any] | None:
        self._text.append(delta.text)
        tokens = [] if delta.token is None else [(delta, self._characters)]
        self._tokens += tokens
        self._characters += len(delta.text)
        return self._chunk(delta.text, tokens) if delta.text or tokens else None

    def last(self, outcome: Outcome) -> list[dict[str, Any]]:
        chunks = [{**self._chunk("", [], outcome.finish_reason), **outcome.extra}]
        return (
            [*chunks, {**self._stamp, "choices": [], "usage": usage(outcome)}]
            if self._request.include_usage
            else chunks
        )

    def whole(self, outcome: Outcome) -> dict[str, Any]:
        choice = self._choice("".join(self._text), self._tokens, outcome.finish_reason)
        return {**self._stamp, "choices": [choice], "usage": usage(outcome), **outcome.extra}

    def _chunk(self, text: str, tokens: list[tuple[Delta, int]], finish_reason: str | None = None) -> dict[str, Any]:
        chunk = {**self._stamp, "choices": [self._choice(text, tokens, finish_reason)]}
        return {**chunk, "usage": None} if self._request.include_usage else chunk

    def _choice(self, text: str, tokens: list[tuple[Delta, int]], finish_reason: str | None) -> dict[str, Any]:
        logprobs = None
        if self._request.top_logprobs is not None:
            told = [(delta, start) for delta, start in tokens if delta.token is not None]
            logprobs = {
                "tokens": [delta.token.text for delta, _ in told],
                "token_logprobs": [delta.token.logprob for delta, _ in told],
                "top_logprobs": [{one.text: one.logprob for one in delta.top} for delta, _ in told],
                "text_offset": [start for _, start in told],
            }
        return {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


def usage(outcome: Outcome) -> dict[str, Any]:
    """Tokens that were read and written."""
    return {
        "prompt_tokens": outcome.prompt_tokens,
        "completion_tokens": outcome.completion_tokens,
        "total_tokens": outcome.prompt_tokens + outcome.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": outcome.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": outcome.reasoning_tokens},
    }


def _chat_token(delta: Delta) -> dict[str, Any]:
    return {**_told(delta.token), "top_logprobs": [_told(one) for one in delta.top]}


def _told(token: TokenText) -> dict[str, Any]:
    # A token that is a part of a character has no text of its own.
    is_whole = "\ufffd" not in token.text
    return {
        "token": token.text,
        "logprob": token.logprob,
        "bytes": list(token.text.encode("utf-8", "replace")) if is_whole else None,
    }
