"""A prompt that was planned in tokens, as the messages that another engine is sent.

The plan's tokens are those of a ChatML template (`<|im_start|>role`, text, `<|im_end|>`), whose control tokens no
content can hold: they are where one message ends and the next begins.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.chat.prompt.template import ChatTokenizer

Message = dict[str, str]
_START, _END = "<|im_start|>", "<|im_end|>"


def prompt_messages(tokenizer: ChatTokenizer, token_ids: Sequence[int]) -> list[Message]:
    """System, questions and answers of a prompt, each with "role" and "content".

    Args:
        tokenizer: that the prompt was planned with.
        token_ids: of the prompt, up to where the answer begins.
    """
    start, end = _control_id(tokenizer, _START), _control_id(tokenizer, _END)
    messages: list[Message] = []
    at = 0
    while start in token_ids[at:]:
        first = token_ids.index(start, at) + 1
        last = token_ids.index(end, first) if end in token_ids[first:] else len(token_ids)
        role, _, content = tokenizer.decode(token_ids[first:last]).partition("\n")
        if last < len(token_ids):
            messages.append({"role": role.strip(), "content": content})
        at = last
    return [message for message in messages if message["content"].strip() or message["role"] != "system"]


def without_system(messages: list[Message]) -> list[Message]:
    """The messages for a model that knows no system: what it would say opens the first question."""
    if len(messages) < 2 or messages[0]["role"] != "system":
        return messages
    system, first, *others = messages
    return [{"role": first["role"], "content": f"{system['content']}\n\n{first['content']}"}, *others]


def _control_id(tokenizer: ChatTokenizer, text: str) -> int:
    for token_id in (*tokenizer.before_system, *tokenizer.before_question):
        if tokenizer.decode([token_id], keep_control=True) == text:
            return token_id
    raise ValueError(f"the template has no {text}")
