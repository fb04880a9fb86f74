"""The model as an LLM of llama-index: all forms give one answer, settings, errors, and who leaves stops it."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from llama_index.core.llms import ChatMessage, ImageBlock, MessageRole

from app.chat import completions
from app.chat.assistant import Assistant
from app.errors import UserFacingError
from app.llama_index import QuestLLM
from app.settings import AppSettings

MESSAGES = [
    ChatMessage(role=MessageRole.SYSTEM, content="Answer in one word."),
    ChatMessage(role=MessageRole.USER, content="What is the capital of France?"),
]


async def collected(stream) -> list:
    return [response async for response in await stream]


def test_all_forms_of_chat_give_one_answer(quest):
    llm = quest.llm
    whole = llm.chat(MESSAGES)
    streamed = list(llm.stream_chat(MESSAGES))
    awaited = asyncio.run(llm.achat(MESSAGES))
    collected_chat = asyncio.run(collected(llm.astream_chat(MESSAGES)))
    text = whole.message.content
    assert "Paris" in text and whole.message.role is MessageRole.ASSISTANT
    assert awaited.message.content == text
    for responses in (streamed, collected_chat):
        assert "".join(response.delta for response in responses) == responses[-1].message.content == text
        assert [response.raw is None for response in responses] == [True] * (len(responses) - 1) + [False]
    usage = whole.raw["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens"] <= 8 and whole.raw["finish_reason"] in ("stop", "length")


def test_all_forms_of_complete_give_one_answer(quest):
    llm, prompt = quest.llm, "What is the capital of France?"
    text = llm.complete(prompt).text
    assert text == llm.chat([ChatMessage(role="user", content=prompt)]).message.content
    streamed = list(llm.stream_complete(prompt))
    collected_text = asyncio.run(collected(llm.astream_complete(prompt)))
    assert asyncio.run(llm.acomplete(prompt)).text == text
    for responses in (streamed, collected_text):
        assert "".join(response.delta for response in responses) == responses[-1].text == text


def test_a_formatted_prompt_is_continued_as_it_stands(quest):
    continued = quest.llm.complete("1, 2, 3, 4, 5, 6,", formatted=True, max_tokens=3).text
    assert continued.strip().startswith("7")
    own = QuestLLM(quest.assistant, temperature=0, max_tokens=3, completion_to_prompt=lambda text: f"{text} 5, 6,")
    assert own.complete("1, 2, 3, 4,").text == continued


def test_settings_hold_for_all_calls_and_for_one(quest):
    llm = QuestLLM(quest.assistant, temperature=1.0, max_tokens=5, seed=3, attention="quest", token_budget=128)
    first = llm.complete("Tell me of the sea.")
    assert first.raw["usage"]["completion_tokens"] == 5 and first.raw["finish_reason"] == "length"
    assert llm.complete("Tell me of the sea.").text == first.text
    others = [llm.complete("Tell me of the sea.", seed=seed).text for seed in range(4, 8)]
    assert any(text != first.text for text in others)
    assert llm.complete("Tell me of the sea.", max_tokens=2).raw["usage"]["completion_tokens"] == 2
    assert llm.max_tokens == 5
    greedy = llm.complete("Count: one, two, three.", temperature=0, max_tokens=12, seed=None).text
    word = greedy.split()[1]
    stopped = llm.complete("Count: one, two, three.", temperature=0, max_tokens=12, stop=word)
    assert stopped.text == greedy[: greedy.index(word)] and stopped.raw["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 2.5}, "max_tokens"),
        ({"top_p": 2}, "top_p"),
        ({"stop": [1]}, "stop"),
        ({"stop": ""}, "stop"),
        ({"attention": "some"}, "attention"),
        ({"token_budget": 1}, "budget"),
        ({"tools": []}, "no setting tools"),
        ({"max_new_tokens": 3}, "no setting max_new_tokens"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(assistant, changes, told):
    llm = QuestLLM(assistant, max_tokens=4)
    with pytest.raises(UserFacingError, match=told):
        llm.complete("The harbour", **changes)
    with pytest.raises(UserFacingError, match=told):
        llm.stream_chat(MESSAGES, **changes)
    with pytest.raises(UserFacingError, match=told):
        QuestLLM(assistant, **changes)


def test_messages_that_the_model_cannot_be_told_are_refused(assistant):
    llm = QuestLLM(assistant, max_tokens=4)
    with pytest.raises(UserFacingError, match="no message"):
        llm.chat([])
    with pytest.raises(UserFacingError, match="role tool"):
        llm.chat([*MESSAGES, ChatMessage(role=MessageRole.TOOL, content="42")])
    with pytest.raises(UserFacingError, match="block of image"):
        llm.chat([ChatMessage(role="user", blocks=[ImageBlock(image=b"png")])])


def test_a_prompt_longer_than_the_window_is_refused(assistant):
    llm = QuestLLM(assistant, max_tokens=4)
    for call in (llm.complete, lambda text: llm.chat([ChatMessage(role="user", content=text)])):
        with pytest.raises(UserFacingError, match="tokens"):
            call("harbour " * 2000)
    with pytest.raises(UserFacingError, match="tokens"):
        asyncio.run(llm.acomplete("harbour " * 2000))


def test_metadata_tell_window_and_name(assistant):
    metadata = QuestLLM(assistant, max_tokens=17).metadata
    assert (metadata.context_window, metadata.num_output) == (1024, 17)
    assert metadata.is_chat_model and metadata.model_name == assistant.status().model


def test_a_model_that_cannot_be_loaded_is_told(tmp_path):
    assistant = Assistant(AppSettings(data_dir=tmp_path, model=str(tmp_path / "nothing-here"), device="cpu"))
    try:
        llm = QuestLLM(assistant)
        for call in (lambda: llm.chat(MESSAGES), lambda: llm.metadata, lambda: asyncio.run(llm.achat(MESSAGES))):
            with pytest.raises(UserFacingError, match="nothing-here"):
                call()
    finally:
        assistant.close()


class HeldCompletion:
    """Thinks a word, says one, and then waits until it is cancelled or let go."""

    def __init__(self) -> None:
        self.cancelled, self.let_go = threading.Event(), threading.Event()
        self.report = SimpleNamespace(prompt_tokens=1, cached_tokens=0, completion_tokens=2, finish_reason="stop")

    def cancel(self) -> None:
        self.cancelled.set()
        self.let_go.set()

    def __iter__(self):
        yield completions.CompletionToken("", "Hm.", 1, 0.0, ())
        yield completions.CompletionToken("Yes", "", 2, 0.0, ())
        assert self.let_go.wait(60), "nobody lets go: the event loop waits"


@pytest.fixture
def held(assistant):
    """An LLM over one completion that is held, and that completion; `begins` holds its beginning."""
    completion, begins = HeldCompletion(), threading.Event()
    begins.set()

    def begin(prompt, options, top_logprobs=None):
        assert begins.wait(60), "nobody lets it begin: the event loop waits"
        return completion

    fake = SimpleNamespace(
        settings=assistant.settings,
        status=assistant.status,
        loaded_model=assistant.loaded_model,
        completions=SimpleNamespace(begin=begin),
    )
    return SimpleNamespace(llm=QuestLLM(fake), completion=completion, begins=begins)


def test_asynchronous_calls_never_hold_the_event_loop(held):
    held.begins.clear()

    async def main():
        answer = asyncio.create_task(held.llm.achat(MESSAGES))
        await asyncio.sleep(0.01)
        held.begins.set()
        await asyncio.sleep(0.01)
        held.completion.let_go.set()
        return await answer

    response = asyncio.run(main())
    assert response.message.content == "Yes"
    assert response.message.additional_kwargs == {"thinking": "Hm."}


def test_awaited_answers_leave_the_loops_own_threads_alone(held):
    async def main():
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        answers = [asyncio.create_task(held.llm.achat(MESSAGES)) for _ in range(3)]
        await asyncio.sleep(0.01)
        # In the one thread there is.
        await asyncio.to_thread(held.completion.let_go.set)
        return await asyncio.gather(*answers)

    assert [response.message.content for response in asyncio.run(main())] == ["Yes"] * 3


def test_a_cancelled_task_stops_its_answer(held):
    async def main():
        task = asyncio.create_task(held.llm.acomplete("?"))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert held.completion.cancelled.is_set()


def test_an_answer_that_begins_after_its_task_was_cancelled_is_stopped(held):
    held.begins.clear()

    async def main():
        task = asyncio.create_task(held.llm.acomplete("?"))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        held.begins.set()
        await asyncio.to_thread(held.completion.cancelled.wait, 60)

    asyncio.run(main())
    assert held.completion.cancelled.is_set()


def test_whoever_leaves_a_stream_stops_it(held):
    stream = held.llm.stream_chat(MESSAGES)
    thinks = next(stream)
    assert thinks.delta == "" and thinks.additional_kwargs == {"thinking_delta": "Hm."}
    assert next(stream).message.content == "Yes"
    stream.close()
    assert held.completion.cancelled.is_set()


def test_whoever_leaves_an_asynchronous_stream_stops_it(held):
    async def main():
        stream = await held.llm.astream_complete("?")
        async for response in stream:
            if response.text:
                break
        await stream.aclose()

    asyncio.run(main())
    assert held.completion.cancelled.is_set()
