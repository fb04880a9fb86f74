"""Text of an answer whose model may think first: `<think>`, a thought, `</think>`, and only then what is said.

A thought begins in the prompt, where the template opens it, or with the answer's first tokens. It has a limit of its
own, so that it never takes the room of the answer, and is no part of what later questions are told. Knows nothing of
where tokens come from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from app.chat.answers.text_stream import TextStream

OPENING, CLOSING = "<think>", "</think>"
# Enough for a plain question about a document; on two cores the embedded model's size writes them in half a minute.
MAX_THINKING_TOKENS = 2048
# Of the window: the documents need the rest.
_MOST_OF_WINDOW = 1 / 4


def thinking_limit(context_tokens: int) -> int:
    """Tokens that a thought may take in a window of `context_tokens`."""
    return min(MAX_THINKING_TOKENS, int(context_tokens * _MOST_OF_WINDOW))


class ThoughtStream:
    """Grows an answer's text, and a thought's before it.

    Args:
        decode: (token ids, whether to keep control tokens) -> text.
        stop: texts that end the answer and are not part of it.
        max_tokens: of the answer.
        max_thinking_tokens: of the thought.
        opened: whether the prompt has opened a thought.

    Attributes:
        text: all of the answer that may be shown.
        answer_start: how many of the tokens come before the answer's first.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int], bool], str],
        stop: Sequence[str],
        max_tokens: int,
        max_thinking_tokens: int,
        opened: bool,
    ) -> None:
        self.answer_start = 0
        self._decode = decode
        self._answer = TextStream(lambda token_ids: decode(token_ids, False), stop, max_tokens)
        # A tag may be a control token, or several plain ones.
        self._thought = TextStream(lambda token_ids: decode(token_ids, True), [CLOSING], max_thinking_tokens)
        self._state: Literal["begins", "thinks", "has_thought", "answers"] = "thinks" if opened else "begins"
        self._held: list[int] = []  # what may yet become an opening tag
        self._tokens = 0

    @property
    def text(self) -> str:
        return self._answer.text

    @property
    def thought(self) -> str:
        """The thought so far, without its tags."""
        return self._thought.text.strip()

    @property
    def thinking_tokens(self) -> int:
        """Tokens of the thought so far, its tags and the blanks after it included; 0 without one."""
        return 0 if self._state == "begins" else self.answer_start

    @property
    def stopped(self) -> bool:
        """Whether a stop string has come."""
        return self._answer.stopped

    @property
    def is_full(self) -> bool:
        """Whether the answer holds as many tokens as it may."""
        return self._answer.is_full or (self._state == "begins" and self._answer.would_be_full(len(self._held)))

    @property
    def thought_is_full(self) -> bool:
        """Whether the thought goes on and holds as many tokens as it may."""
        return self._state == "thinks" and self._thought.is_full

    @property
    def kept_tokens(self) -> int:
        """How many of the tokens belong to what was thought and said; the others are of a stop string."""
        return self.answer_start + self._answer.kept_tokens if self._state == "answers" else self._tokens

    def push(self, token_id: int) -> str:
        """Take a token; returns the new text of the answer that may be shown, often empty."""
        self._tokens += 1
        if self._state == "begins":
            return self._begin(token_id)
        if self._state == "thinks":
            self._thought.push(token_id)
            if self._thought.stopped:
                self._state = "has_thought"
        elif self._state == "has_thought" and self._decode([token_id], True).strip():
            self._state = "answers"
        if self._state == "answers":
            return self._answer.push(token_id)
        self.answer_start = self._tokens
        return ""

    def _begin(self, token_id: int) -> str:
        self._held.append(token_id)
        seen = self._decode(self._held, True).lstrip()
        if seen.startswith(OPENING):
            self._state, self.answer_start = "thinks", self._tokens
        elif not OPENING.startswith(seen):
            return self._answer_held()
        return ""

    def _answer_held(self) -> str:
        self._state = "answers"
        return "".join(self._answer.push(held) for held in self._held)

    def cut_thought(self, closing_tokens: int) -> None:
        """End the thought, as if its closing tag had come in so many tokens."""
        self._thought.finish()
        self._state = "has_thought"
        self._tokens += closing_tokens
        self.answer_start = self._tokens

    def finish(self) -> str:
        """Return what was held back of the answer."""
        self._thought.finish()
        begun = self._answer_held() if self._state == "begins" else ""
        return begun + self._answer.finish()
