"""Messages as tokens: what the model's own chat template makes of them, as Transformers would encode it.

The page's prompts are put together from the template's seams (`app.chat.prompt.template`), because they share their
beginnings; messages of other programs may be any number in any order, and are rendered one dialogue at a time.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from app.chat.answers.thought_stream import CLOSING, OPENING
from app.chat.prompt.template_rendering import TemplateFault, TemplateRenderer
from app.errors import UserFacingError

if TYPE_CHECKING:
    from app.chat.prompt.template import ChatTokenizer


@dataclass(frozen=True)
class ChatMessage:
    """What somebody says in a dialogue."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class MessagePrompt:
    """Tokens of a prompt, and whether it opens a thought."""

    token_ids: list[int]
    opens_thought: bool


class MessagePrompts:
    """Renders messages with one model's template; safe to call from any thread.

    Args:
        tokenizer: of the model.
    """

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._tokenizer = tokenizer
        template, variables = tokenizer.chat_template, tokenizer.template_variables
        self._renderer = TemplateRenderer(template, variables) if template else None

    def prompt(self, messages: Sequence[ChatMessage]) -> MessagePrompt:
        """The tokens of messages and of what leads to the answer.

        Without a template, messages are told one below the other, each after who speaks.

        Raises:
            UserFacingError: no messages, or the template refuses them.
        """
        if not messages:
            raise UserFacingError("There are no messages. Send one at least.")
        # A lone surrogate is no text.
        contents = [message.content.encode("utf-8", "replace").decode("utf-8") for message in messages]
        roles = [message.role for message in messages]
        marks = [
            f"@@{secrets.token_hex(8)}@@" if self._has_control(role, content) else ""
            for role, content in zip(roles, contents, strict=True)
        ]
        shown = [mark or content for mark, content in zip(marks, contents, strict=True)]
        text = self._rendered([{"role": role, "content": one} for role, one in zip(roles, shown, strict=True)])
        pieces: list[int] = []
        for mark, content in zip(marks, contents, strict=True):
            if not mark:
                continue
            before, found, text = text.partition(mark)
            # A template may leave out what was said earlier.
            if not found:
                text = before
                continue
            pieces += [*self._tokenizer.encode_control(before), *self._tokenizer.encode(content).token_ids]
        pieces += self._tokenizer.encode_control(text)
        bos = self._tokenizer.bos_token_ids
        token_ids = pieces if tuple(pieces[: len(bos)]) == bos else [*bos, *pieces]
        return MessagePrompt(token_ids, text.rstrip().endswith(OPENING))

    def _has_control(self, role: str, content: str) -> bool:
        # A thought before an answer of the past is for the template, which may leave it out.
        own = (OPENING, CLOSING) if role == "assistant" else ()
        return any(text in content for text in self._tokenizer.control_texts if text not in own)

    def _rendered(self, messages: list[dict[str, str]]) -> str:
        if self._renderer is None:
            names = {"system": "", "user": "Question: ", "assistant": "Answer: "}
            told = [names[message["role"]] + message["content"] for message in messages]
            return "\n\n".join(told) + "\nAnswer:"
        try:
            return self._renderer.render(messages)
        except TemplateFault as fault:
            merged = _with_system_merged(messages)
            if merged is not None:
                try:
                    return self._renderer.render(merged)
                except TemplateFault:
                    pass
            raise UserFacingError(f"The model's chat template refuses these messages: {fault}.") from fault

    def close(self) -> None:
        """End the process that renders."""
        if self._renderer is not None:
            self._renderer.close()


def _with_system_merged(messages: list[dict[str, str]]) -> list[dict[str, str]] | None:
    """For a template that knows no system message: it opens the first question. None where there is nothing to do."""
    if len(messages) < 2 or messages[0]["role"] != "system" or messages[1]["role"] != "user":
        return None
    first = {"role": "user", "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
    return [first, *messages[2:]]
