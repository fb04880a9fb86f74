"""Text from tokens, one token at a time: whole characters only, nothing past a stop string.

A character can take several tokens, and a stop string can begin in one token and end in another; both are held back
until they are decided. Knows nothing of where tokens come from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

# What a decoder puts in place of bytes that are no character, or not yet one.
_INCOMPLETE = "\ufffd"
# A character has at most four bytes, so more incomplete tokens than this are plain bad bytes.
_MAX_PENDING_TOKENS = 8


class TextStream:
    """Grows an answer's text.

    Args:
        decode: token ids -> text, without control tokens.
        stop: texts that end the answer and are not part of it.
        max_tokens: how many it may hold; None if others see to that.

    Attributes:
        text: all that may be shown.
        stopped: whether a stop string has come.
        kept_tokens: how many of the pushed tokens the text holds something of; the others belong to a stop string.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = (), max_tokens: int | None = None
    ) -> None:
        self.text = ""
        self.stopped = False
        self.kept_tokens = 0
        self._decode = decode
        self._max_tokens = max_tokens
        self._stop = [string for string in stop if string]
        self._held = ""
        # Decoding starts one settled window early: some tokenizers drop a blank at the start of what they decode.
        self._window: list[int] = []
        self._settled_tokens = 0
        self._token_starts: list[int] = []

    @property
    def is_full(self) -> bool:
        """Whether it holds as many tokens as it may."""
        return self.would_be_full(0)

    def would_be_full(self, more_tokens: int) -> bool:
        """Whether it would with so many more."""
        return self._max_tokens is not None and len(self._token_starts) + more_tokens >= self._max_tokens

    def push(self, token_id: int) -> str:
        """Take a token; returns the new text that may be shown, often empty."""
        if self.stopped:
            return ""
        self._token_starts.append(len(self.text) + len(self._held))
        self._window.append(token_id)
        before = self._decode(self._window[: self._settled_tokens])
        now = self._decode(self._window)
        pending = len(self._window) - self._settled_tokens
        if now.endswith(_INCOMPLETE) and pending < _MAX_PENDING_TOKENS:
            return ""
        self._window = self._window[self._settled_tokens :]
        self._settled_tokens = len(self._window)
        return self._show(now[len(before) :])

    def finish(self) -> str:
        """Return what was held back for a stop string that never came; an incomplete character is dropped."""
        held, self._held = ("" if self.stopped else self._held), ""
        self.text += held
        self._count_kept()
        return held

    def _show(self, delta: str) -> str:
        candidate = self._held + delta
        ends = [index for string in self._stop if (index := candidate.find(string)) >= 0]
        if ends:
            self.stopped = True
            shown, self._held = candidate[: min(ends)], ""
        else:
            split = len(candidate) - self._possible_stop(candidate)
            shown, self._held = candidate[:split], candidate[split:]
        self.text += shown
        self._count_kept()
        return shown

    def _possible_stop(self, text: str) -> int:
        """Length of the longest ending of `text` that begins a stop string."""
        longest = max(map(len, self._stop), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(string.startswith(text[-length:]) for string in self._stop):
                return length
        return 0

    def _count_kept(self) -> None:
        if self.stopped:
            self.kept_tokens = sum(start < len(self.text) for start in self._token_starts)
        else:
            self.kept_tokens = len(self._token_starts)
