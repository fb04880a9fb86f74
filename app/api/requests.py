"""What a request to the API asks for: read from its JSON, with defaults, and refused by name where it cannot be had.

Knows nothing of models or of how an answer is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.api.errors import ApiError, refused
from app.api.fields import Fields
from app.chat.answers.answer import AnswerOptions
from app.chat.completions import ChatMessage
from app.settings import AppSettings
from quest_core.config import ATTENTIONS, MAX_CONTEXT_TOKENS

# OpenAI's limits.
_MOST_TOP_LOGPROBS, _MOST_TEXT_LOGPROBS, _MOST_STOPS = 20, 5, 4
_MOST_DOCUMENTS = 100
_DEFAULT_TEXT_TOKENS = 16
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_NO_TOOLS = "this server calls no tools."
_ONE_KIND = "answers are text."
# Whoever watches for abuse, stores or bills reads these; nothing of it is done here.
_IGNORED = ("user", "safety_identifier", "prompt_cache_key", "metadata", "service_tier")
_NEUTRAL: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    ("n", (1,), "there is one answer to a request; ask again for another."),
    ("frequency_penalty", (0,), "use repetition_penalty."),
    ("presence_penalty", (0,), "use repetition_penalty."),
    ("logit_bias", ({},), "no token is preferred to others."),
    ("store", (False,), "nothing of a request is kept."),
)
_NEUTRAL_IN_CHAT: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    ("tools", ([],), _NO_TOOLS),
    ("tool_choice", ("none", "auto"), _NO_TOOLS),
    ("parallel_tool_calls", (False, True), _NO_TOOLS),
    ("functions", ([],), _NO_TOOLS),
    ("function_call", ("none", "auto"), _NO_TOOLS),
    ("audio", (), _ONE_KIND),
    ("modalities", (["text"],), _ONE_KIND),
    ("prediction", (), "every token is decoded."),
    ("reasoning_effort", (), "how long a model thinks is its own choice."),
    ("verbosity", ("medium",), "how much a model says is its own choice."),
    ("web_search_options", (), "nothing is fetched from the web."),
)
_NEUTRAL_IN_TEXT: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    ("best_of", (1,), "there is one answer to a request."),
    ("echo", (False,), "put the prompt before the answer yourself."),
    ("suffix", ("",), "a text is only continued at its end."),
)


@dataclass(frozen=True)
class ApiRequest:
    """What is asked.

    Args:
        model: as named.
        prompt: messages, or a text to continue.
        options: of the answer; `max_new_tokens` means nothing if `fills_window`.
        fills_window: the answer may be as long as the window leaves.
        stream, include_usage: how it is to be sent.
        top_logprobs: likeliest tokens told for each; None for no probabilities.
        documents: ids of the library's documents that it is about.
        wants_quest: whether reading statistics were asked for.
        client: what its sender calls who is asking; "" for nobody.
    """

    model: str
    prompt: tuple[ChatMessage, ...] | str
    options: AnswerOptions
    fills_window: bool
    stream: bool
    include_usage: bool
    top_logprobs: int | None
    documents: tuple[str, ...] = ()
    wants_quest: bool = False
    client: str = ""


def read_chat(values: Any, settings: AppSettings) -> ApiRequest:
    """A request to /v1/chat/completions.

    Raises:
        ApiError: it is none, or asks for what there is not.
    """
    fields = _fields_of(values)
    client = str(values.get("safety_identifier") or values.get("user") or "")
    model = _take_model(fields)
    messages = _take_messages(fields)
    options = _take_options(fields, settings)
    longest = fields.take_whole("max_completion_tokens", 1, MAX_CONTEXT_TOKENS)
    older = fields.take_whole("max_tokens", 1, MAX_CONTEXT_TOKENS)
    if longest is not None and older is not None and longest != older:
        raise refused("max_tokens and max_completion_tokens say two things. Send one of them.", "max_tokens")
    longest = longest or older
    top_logprobs = fields.take_whole("top_logprobs", 0, _MOST_TOP_LOGPROBS)
    with_logprobs = fields.take_bool("logprobs")
    if top_logprobs is not None and not with_logprobs:
        raise refused("top_logprobs needs logprobs to be true.", "top_logprobs")
    _check_format(fields)
    documents = _take_documents(fields)
    quest = fields.take_object("quest")
    options = _with_quest(options, quest)
    if documents:
        if with_logprobs:
            raise refused("logprobs are not told of answers over documents. Leave one of the two out.", "logprobs")
        _check_turns(messages)
        options = replace(options, max_new_tokens=longest or options.max_new_tokens)
    elif longest:
        options = replace(options, max_new_tokens=longest)
    stream, include_usage = _take_stream(fields)
    for name, neutral, why in (*_NEUTRAL, *_NEUTRAL_IN_CHAT):
        fields.take_neutral(name, neutral, why)
    fields.ignore(*_IGNORED)
    fields.end()
    return ApiRequest(
        model,
        messages,
        options,
        longest is None,
        stream,
        include_usage,
        (top_logprobs or 0) if with_logprobs else None,
        documents,
        quest is not None,
        client,
    )


def read_text(values: Any, settings: AppSettings) -> ApiRequest:
    """A request to /v1/completions.

    Raises:
        ApiError: as `read_chat`.
    """
    fields = _fields_of(values)
    client = str(values.get("safety_identifier") or values.get("user") or "")
    model = _take_model(fields)
    prompt = fields.take("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str) or not prompt:
        raise refused("prompt must be one text that is not empty; tokens and several prompts are not taken.", "prompt")
    options = _take_options(fields, settings)
    longest = fields.take_whole("max_tokens", 1, MAX_CONTEXT_TOKENS, _DEFAULT_TEXT_TOKENS)
    top_logprobs = fields.take_whole("logprobs", 0, _MOST_TEXT_LOGPROBS)
    quest = fields.take_object("quest")
    options = replace(_with_quest(options, quest), max_new_tokens=longest)
    if fields.take("documents") is not None:
        raise refused("documents are answered over in /v1/chat/completions.", "documents")
    stream, include_usage = _take_stream(fields)
    for name, neutral, why in (*_NEUTRAL, *_NEUTRAL_IN_TEXT):
        fields.take_neutral(name, neutral, why)
    fields.ignore(*_IGNORED)
    fields.end()
    return ApiRequest(model, prompt, options, False, stream, include_usage, top_logprobs, (), quest is not None, client)


def _fields_of(values: Any) -> Fields:
    if not isinstance(values, dict):
        raise refused("The body must be one JSON object.")
    return Fields(values)


def _take_model(fields: Fields) -> str:
    model = fields.take_text("model")
    if not model:
        raise refused("model is missing. GET /v1/models tells its name.", "model", "missing_required_parameter")
    return model


def _take_messages(fields: Fields) -> tuple[ChatMessage, ...]:
    messages = fields.take("messages")
    if not isinstance(messages, list) or not messages:
        raise refused("messages must be a list of at least one message.", "messages")
    return tuple(_read_message(message, f"messages[{index}]") for index, message in enumerate(messages))


def _read_message(message: Any, name: str) -> ChatMessage:
    if not isinstance(message, dict):
        raise refused(f"{name} must be an object.", name)
    role = message.get("role")
    if role in ("tool", "function"):
        raise refused(f"{name}.role {role} is not supported: {_NO_TOOLS}", f"{name}.role", "unsupported_parameter")
    if not isinstance(role, str) or role not in _ROLES:
        raise refused(f"{name}.role must be system, developer, user or assistant.", f"{name}.role")
    for refused_field in ("tool_calls", "function_call", "audio"):
        if message.get(refused_field):
            raise refused(
                f"{name}.{refused_field} is not supported: {_NO_TOOLS if refused_field != 'audio' else _ONE_KIND}",
                f"{name}.{refused_field}",
                "unsupported_parameter",
            )
    return ChatMessage(_ROLES[role], _read_content(message.get("content"), f"{name}.content"))


def _read_content(content: Any, name: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise refused(f"{name} must be a string, or a list of parts that are text.", name)
    texts = []
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text":
            raise refused(
                f"{name}[{index}] is not supported: parts of a message are text.",
                f"{name}[{index}]",
                "unsupported_parameter",
            )
        if not isinstance(part.get("text"), str):
            raise refused(f"{name}[{index}].text must be a string.", f"{name}[{index}].text")
        texts.append(part["text"])
    return "\n".join(texts)


def _take_options(fields: Fields, settings: AppSettings) -> AnswerOptions:
    default = AnswerOptions(attention=settings.attention, token_budget=settings.token_budget)
    top_p = fields.take_number("top_p", 0.0, 1.0, default.top_p)
    if top_p == 0.0:
        raise refused("top_p must be above 0; a temperature of 0 is greedy.", "top_p")
    return replace(
        default,
        temperature=fields.take_number("temperature", 0.0, 2.0, default.temperature),
        top_p=top_p,
        top_k=fields.take_whole("top_k", 0, MAX_CONTEXT_TOKENS, default.top_k),
        min_p=fields.take_number("min_p", 0.0, 1.0, default.min_p),
        repetition_penalty=fields.take_number("repetition_penalty", 0.01, 10.0, default.repetition_penalty),
        seed=fields.take_whole("seed", -(1 << 63), (1 << 63) - 1),
        stop=_take_stop(fields),
    )


def _take_stop(fields: Fields) -> tuple[str, ...]:
    stop = fields.take("stop", [])
    stop = [stop] if isinstance(stop, str) else stop
    if not isinstance(stop, list) or not all(isinstance(one, str) and one for one in stop) or len(stop) > _MOST_STOPS:
        raise refused(f"stop must be a text, or up to {_MOST_STOPS} of them, none empty.", "stop")
    return tuple(stop)


def _take_stream(fields: Fields) -> tuple[bool, bool]:
    stream = fields.take_bool("stream")
    stream_options = fields.take_object("stream_options")
    if stream_options is None:
        return stream, False
    if not stream:
        raise refused("stream_options needs stream to be true.", "stream_options")
    include_usage = stream_options.take_bool("include_usage")
    # Padding against guesses by length; there is nobody in between on this machine.
    stream_options.ignore("include_obfuscation")
    stream_options.end()
    return stream, include_usage


def _check_format(fields: Fields) -> None:
    response_format = fields.take_object("response_format")
    if response_format is None:
        return
    kind = response_format.take("type")
    if kind != "text":
        raise refused(
            "response_format is not supported other than text: nothing here makes a model write valid JSON. Ask for "
            "JSON in a message, and check what comes.",
            "response_format",
            "unsupported_parameter",
        )
    response_format.end()


def _take_documents(fields: Fields) -> tuple[str, ...]:
    documents = fields.take("documents", [])
    if not isinstance(documents, list) or not all(isinstance(one, str) and one for one in documents):
        raise refused("documents must be a list of ids; GET /v1/documents tells them.", "documents")
    if len(documents) > _MOST_DOCUMENTS:
        raise refused(f"documents may name at most {_MOST_DOCUMENTS}.", "documents")
    return tuple(dict.fromkeys(documents))


def _with_quest(options: AnswerOptions, quest: Fields | None) -> AnswerOptions:
    if quest is None:
        return options
    attention = quest.take("attention", options.attention)
    if attention not in ATTENTIONS:
        raise refused(f"quest.attention must be one of {', '.join(ATTENTIONS)}.", "quest.attention")
    budget = quest.take_whole("token_budget", 1, MAX_CONTEXT_TOKENS, options.token_budget)
    quest.end()
    return replace(options, attention=attention, token_budget=budget)


def _check_turns(messages: Sequence[ChatMessage]) -> None:
    """With documents the messages are a conversation: perhaps instructions, then questions and answers by turns."""
    turns = messages[1:] if messages[0].role == "system" else messages
    expected = ["user" if index % 2 == 0 else "assistant" for index in range(len(turns))]
    if [one.role for one in turns] != expected or len(turns) % 2 == 0:
        raise ApiError(
            400,
            "With documents, messages are one system message or none, then user and assistant by turns, and last the "
            "user's question.",
            "messages",
        )
