"""Messages of llama-index as the app's own, and the parts of its responses.

Only text is taken: what a model cannot see is refused, not left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, MessageRole, TextBlock, ThinkingBlock

from app.chat import completions
from app.errors import UserFacingError

_ROLES = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
}


def told_messages(messages: Sequence[ChatMessage]) -> list[completions.ChatMessage]:
    """The messages as the model is told them; thoughts of earlier answers are no part of that.

    Raises:
        UserFacingError: there are none, one is of a tool, or one holds something else than text.
    """
    if not messages:
        raise UserFacingError("There is no message to answer. Pass one of the user's at least.")
    return [_told(message) for message in messages]


def _told(message: ChatMessage) -> completions.ChatMessage:
    role = _ROLES.get(message.role)
    if role is None:
        raise UserFacingError(f"Messages of the role {message.role.value} are refused: the model calls no tools.")
    for block in message.blocks:
        if not isinstance(block, TextBlock | ThinkingBlock):
            raise UserFacingError(f"The model reads text only, and a message holds a block of {block.block_type}.")
    return completions.ChatMessage(role, message.content or "")


def additional_kwargs(thinking: str) -> dict[str, Any]:
    """What stands beside an answer's text: the thought before it, if there was one."""
    return {"thinking": thinking} if thinking else {}


def usage(report: completions.CompletionReport) -> dict[str, Any]:
    """How an answer came about, with the keys that llama-index counts tokens by."""
    return {
        "finish_reason": report.finish_reason,
        "usage": {
            "prompt_tokens": report.prompt_tokens,
            "completion_tokens": report.completion_tokens,
            "total_tokens": report.prompt_tokens + report.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": report.cached_tokens},
        },
    }
