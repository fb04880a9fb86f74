"""The app's model as an LLM of llama-index.

Every form (complete or chat, streamed or not, waiting or asynchronous) is one completion of `app.chat.completions`;
the asynchronous ones wait in threads, so that the event loop never does. Knows nothing of documents.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, LLMMetadata, MessageRole
from llama_index.core.bridge.pydantic import PrivateAttr, ValidationError
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.llm import default_completion_to_prompt

from app.chat import completions
from app.chat.answers.answer import AnswerOptions
from app.chat.assistant import Assistant
from app.errors import UserFacingError
from app.llama_index.answer_fields import AnswerFields, setting_error, with_stop_texts
from app.llama_index.message_texts import additional_kwargs, told_messages, usage
from app.llama_index.thread_stream import stream_in_thread

_Prompt = str | Sequence[completions.ChatMessage]
_Response = TypeVar("_Response", ChatResponse, CompletionResponse)


@dataclass(frozen=True)
class _Said:
    """An answer so far; the last one of an answer has its report."""

    text: str = ""
    thinking: str = ""
    text_delta: str = ""
    thinking_delta: str = ""
    report: completions.CompletionReport | None = None


class QuestLLM(AnswerFields, CustomLLM):
    """The model of an assistant, for whatever of llama-index takes an LLM.

    Its settings are the fields of `AnswerFields`; every call takes them too, for that call. A model's thought is no
    part of the text; it is "thinking" of `additional_kwargs`. `raw` has the tokens of the prompt and of the answer and
    why it ended ("stop", "length", ...). A stream begins when it is first asked, and whoever leaves it stops it.

    Args:
        assistant: whose model answers; loaded at the first need, and open as long as this is used.
        fields: settings, and what any LLM of llama-index takes (system_prompt, callback_manager, ...). Without them
            `attention` and `token_budget` are the assistant's.

    Raises:
        UserFacingError: no such setting, or a value that it cannot have; in calls also a model that cannot be loaded, a
            prompt longer than the window, a message that is not text.
    """

    _assistant: Assistant = PrivateAttr()

    def __init__(self, assistant: Assistant, **fields: Any) -> None:
        if unknown := sorted(set(fields) - set(type(self).model_fields)):
            known = ", ".join(AnswerFields.model_fields)
            raise UserFacingError(f"The model has no setting {', '.join(unknown)}. Its settings are {known}.")
        settings = assistant.settings
        of_app = {"attention": settings.attention, "token_budget": settings.token_budget}
        try:
            super().__init__(**{**of_app, **with_stop_texts(fields)})
        except ValidationError as error:
            raise setting_error(error) from error
        self._assistant = assistant
        self._options({})

    @classmethod
    def class_name(cls) -> str:
        return "quest_llm"

    @property
    def metadata(self) -> LLMMetadata:
        """Window, longest output and name of the model; waits for it.

        Raises:
            UserFacingError: if it cannot be loaded.
        """
        model = self._assistant.loaded_model()
        return LLMMetadata(
            context_window=model.engine.context_tokens,
            num_output=self.max_tokens,
            model_name=model.engine.model_name,
            is_chat_model=True,
        )

    def to_payload(self) -> dict[str, Any]:
        # What llama-index tells its observers; it asks in the event loop, where nothing may wait for the model.
        name = self._assistant.status().model
        settings = self.model_dump(include=set(AnswerFields.model_fields))
        return {"class_name": self.class_name(), "model_name": name, **settings}

    def token_ids(self, text: str) -> list[int]:
        """A text's tokens for this model; waits for it. For what of llama-index takes a tokenizer.

        Without it llama-index counts with the tokenizer of another model, which comes with its package.

        Raises:
            UserFacingError: if the model cannot be loaded.
        """
        return list(self._assistant.loaded_model().tokenizer.encode(text).token_ids)

    # Waiting

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt as a question of the user; one that is `formatted` is continued as it stands."""
        begun = self._begin(self._told_prompt(prompt, formatted), self._options(kwargs))
        return _completion_response(_end(begun))

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> Generator[CompletionResponse, None, None]:
        """`complete`, text by text."""
        return self._stream(self._told_prompt(prompt, formatted), self._options(kwargs), _completion_response)

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer the last message of a conversation, in the model's own chat template."""
        begun = self._begin(told_messages(messages), self._options(kwargs))
        return _chat_response(_end(begun))

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Generator[ChatResponse, None, None]:
        """`chat`, text by text."""
        return self._stream(told_messages(messages), self._options(kwargs), _chat_response)

    # Asynchronous

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """`complete`; cancelling the task stops the answer."""
        told, options = self._told_prompt(prompt, formatted), self._options(kwargs)
        return await self._whole_in_thread(told, options, _completion_response)

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> AsyncGenerator[CompletionResponse, None]:
        """`stream_complete`."""
        told, options = self._told_prompt(prompt, formatted), self._options(kwargs)
        return self._stream_in_thread(told, options, _completion_response)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """`chat`; cancelling the task stops the answer."""
        return await self._whole_in_thread(told_messages(messages), self._options(kwargs), _chat_response)

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> AsyncGenerator[ChatResponse, None]:
        """`stream_chat`."""
        return self._stream_in_thread(told_messages(messages), self._options(kwargs), _chat_response)

    def _options(self, changes: Mapping[str, Any]) -> AnswerOptions:
        """The options of a call, refused before anything waits if they can never be."""
        options, settings = self.answer_options(changes), self._assistant.settings
        options.sampling_config(stop_token_ids=())
        options.quest_config(settings.page_size, settings.dense_layers)
        return options

    def _told_prompt(self, prompt: str, formatted: bool) -> _Prompt:
        if formatted:
            return prompt
        if self.completion_to_prompt is not default_completion_to_prompt:
            # Whoever has given one knows the model's format.
            return self.completion_to_prompt(prompt)
        return [completions.ChatMessage("user", prompt)]

    def _begin(self, prompt: _Prompt, options: AnswerOptions) -> completions.Completion:
        return self._assistant.completions.begin(prompt, options)

    def _stream(
        self, prompt: _Prompt, options: AnswerOptions, response: Callable[[_Said], _Response]
    ) -> Generator[_Response, None, None]:
        begun = self._begin(prompt, options)
        try:
            for said in _said(begun):
                yield response(said)
        finally:
            begun.cancel()

    async def _stream_in_thread(
        self, prompt: _Prompt, options: AnswerOptions, response: Callable[[_Said], _Response]
    ) -> AsyncGenerator[_Response, None]:
        async with aclosing(stream_in_thread(lambda: self._begin(prompt, options), _said)) as stream:
            async for said in stream:
                yield response(said)

    async def _whole_in_thread(
        self, prompt: _Prompt, options: AnswerOptions, response: Callable[[_Said], _Response]
    ) -> _Response:
        last = _Said()
        async with aclosing(stream_in_thread(lambda: self._begin(prompt, options), _said)) as stream:
            async for said in stream:
                last = said
        return response(last)


def _said(completion: completions.Completion) -> Iterator[_Said]:
    text = thinking = ""
    for token in completion:
        if token.text_delta or token.thinking_delta:
            text, thinking = text + token.text_delta, thinking + token.thinking_delta
            yield _Said(text, thinking, token.text_delta, token.thinking_delta)
    yield _Said(text, thinking, report=completion.report)


def _end(completion: completions.Completion) -> _Said:
    *_, last = _said(completion)
    return last


def _completion_response(said: _Said) -> CompletionResponse:
    return CompletionResponse(
        text=said.text,
        delta=said.text_delta,
        additional_kwargs=additional_kwargs(said.thinking),
        raw=None if said.report is None else usage(said.report),
    )


def _chat_response(said: _Said) -> ChatResponse:
    beside = additional_kwargs(said.thinking)
    return ChatResponse(
        message=ChatMessage(role=MessageRole.ASSISTANT, content=said.text, additional_kwargs=beside),
        delta=said.text_delta,
        additional_kwargs={"thinking_delta": said.thinking_delta} if said.thinking_delta else {},
        raw=None if said.report is None else usage(said.report),
    )
