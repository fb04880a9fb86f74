"""/v1/chat/completions and /v1/completions through the official client."""

from __future__ import annotations

import pytest

from app.chat.answers.answer import AnswerOptions
from app.chat.answers.text_stream import TextStream
from app.chat.completions import ChatMessage
from quest_core.config import QuestConfig, SamplingConfig

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who kept the light?"}]


def engine_tokens(assistant, token_ids: list[int], tokens: int) -> list[int]:
    """What the engine decodes greedily after a prompt, without any of the API."""
    model = assistant.loaded_model()
    sampling = SamplingConfig(max_new_tokens=tokens, stop_token_ids=model.stop_token_ids)

    def work(cancellation):
        session = model.engine.new_session()
        for _ in session.prefill(token_ids, cancellation, tokens):
            pass
        yield from session.decode(QuestConfig(attention="auto"), sampling, cancellation)
        session.close()

    return [step.token_id for step in model.engine.submit(work) if step.finish_reason != "stop"]


def text_of(assistant, token_ids: list[int]) -> str:
    """Their text, without an incomplete character at its end."""
    stream = TextStream(assistant.loaded_model().tokenizer.decode)
    return "".join(map(stream.push, token_ids)) + stream.finish()


def test_models_are_listed(client, model_name):
    (model,) = client.models.list().data
    assert model.id == model_name and model.object == "model"
    assert client.models.retrieve(model_name).max_model_len == 1024


def test_a_greedy_answer_is_the_engines(assistant, ask):
    reply = ask(messages=MESSAGES)
    prompt = assistant.loaded_model().tokenizer.messages.prompt([ChatMessage(**one) for one in MESSAGES])
    expected = engine_tokens(assistant, prompt.token_ids, 12)
    assert reply.choices[0].message.content == text_of(assistant, expected)
    assert reply.choices[0].message.role == "assistant" and reply.choices[0].finish_reason in ("length", "stop")
    assert reply.object == "chat.completion" and reply.id.startswith("chatcmpl-")
    assert reply.usage.prompt_tokens == len(prompt.token_ids)
    assert reply.usage.completion_tokens == len(expected)
    assert reply.usage.total_tokens == len(prompt.token_ids) + len(expected)
    assert reply.usage.completion_tokens_details.reasoning_tokens == 0


def test_what_was_read_is_not_read_again(ask):
    question = "Why did the keeper leave, in one word?"
    ask(question)
    usage = ask(question).usage
    assert usage.prompt_tokens_details.cached_tokens >= usage.prompt_tokens - 1


def test_a_stream_says_the_same(ask):
    whole = ask(messages=MESSAGES)
    chunks = list(ask(messages=MESSAGES, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks[:-1]]
    assert "".join(texts) == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_without_usage_tells_none(ask):
    assert all(chunk.usage is None and chunk.choices for chunk in ask(stream=True))


def test_max_tokens_under_both_names(ask):
    assert ask(max_tokens=3).usage.completion_tokens == 3
    reply = ask(max_tokens=None, max_completion_tokens=3)
    assert reply.usage.completion_tokens == 3 and reply.choices[0].finish_reason == "length"


@pytest.mark.parametrize("as_list", [False, True])
def test_stop_ends_the_answer_before_it(ask, as_list):
    text = ask(max_tokens=24).choices[0].message.content
    stop = text[len(text) // 2 :][:2]
    reply = ask(max_tokens=24, stop=["never said", stop] if as_list else stop)
    assert reply.choices[0].message.content == text[: text.index(stop)]
    assert reply.choices[0].finish_reason == "stop"


def test_a_seed_makes_a_draw_repeatable(ask):
    first, again, other = (
        ask(temperature=1.5, seed=seed, max_tokens=20).choices[0].message.content for seed in (7, 7, 8)
    )
    assert first == again != other
    assert ask(temperature=2, top_p=1e-6).choices[0].message.content == ask().choices[0].message.content


def test_logprobs_are_those_of_a_fresh_prefill(assistant, ask):
    import torch

    reply = ask(messages=MESSAGES, logprobs=True, top_logprobs=3, extra_body={"quest": {"attention": "dense"}})
    told = reply.choices[0].logprobs.content
    model = assistant.loaded_model()
    prompt = model.tokenizer.messages.prompt([ChatMessage(**one) for one in MESSAGES]).token_ids
    drawn = engine_tokens(assistant, prompt, 12)
    assert len(told) == len(drawn)
    for count, token in enumerate(told):

        def work(cancellation, length=count):
            session = model.engine.new_session()
            for _ in session.prefill([*prompt, *drawn[:length]], cancellation, 1):
                pass
            yield session.logits.log_softmax(dim=-1)
            session.close()

        (logprobs,) = model.engine.submit(work)
        assert token.logprob == pytest.approx(float(logprobs[drawn[count]]), abs=2e-2)
        values = torch.tensor([one.logprob for one in token.top_logprobs])
        torch.testing.assert_close(values, logprobs.topk(3).values, atol=2e-2, rtol=0)
        assert token.top_logprobs[0].token == token.token
        if "\ufffd" not in token.token:
            assert bytes(token.bytes).decode() == token.token


def test_logprobs_without_others(ask):
    told = ask(logprobs=True).choices[0].logprobs.content
    assert told and all(one.top_logprobs == [] and one.logprob <= 0 for one in told)
    streamed = [chunk.choices[0].logprobs for chunk in ask(logprobs=True, stream=True)]
    assert sum(len(one.content) for one in streamed if one) == len(told)


def test_the_answer_may_be_as_long_as_the_window_leaves(ask):
    usage = ask("light " * 330, max_tokens=None).usage
    assert usage.prompt_tokens + usage.completion_tokens <= 1024


def test_parts_of_a_message_and_a_developer(ask):
    parts = [{"type": "text", "text": "Who kept"}, {"type": "text", "text": "the light?"}]
    told = ask(messages=[{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}])
    plain = ask(messages=[MESSAGES[0], {"role": "user", "content": "Who kept\nthe light?"}])
    assert told.choices[0].message.content == plain.choices[0].message.content


def test_quest_is_told_what_to_read(ask):
    reply = ask(extra_body={"quest": {"attention": "quest", "token_budget": 64}})
    assert reply.quest["attention"] == "quest" and reply.quest["token_budget"] == 64


def test_a_text_is_continued(assistant, client, model_name):
    prompt = "The harbour lay still"
    reply = client.completions.create(model=model_name, prompt=prompt, max_tokens=8, temperature=0, logprobs=2)
    tokenizer = assistant.loaded_model().tokenizer
    expected = engine_tokens(assistant, tokenizer.encode_prompt(prompt), 8)
    choice = reply.choices[0]
    assert choice.text == text_of(assistant, expected)
    assert len(choice.logprobs.tokens) == len(choice.logprobs.token_logprobs) == len(expected)
    assert choice.logprobs.text_offset[0] == 0 and len(choice.logprobs.top_logprobs[0]) <= 2
    assert reply.usage.prompt_tokens == len(tokenizer.encode_prompt(prompt))
    chunks = client.completions.create(
        model=model_name,
        prompt=[prompt],
        max_tokens=8,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(chunks)
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == choice.text
    assert chunks[-1].usage.completion_tokens == len(expected)
    assert client.completions.create(model=model_name, prompt=prompt).usage.completion_tokens <= 16


def test_default_options_are_the_engines_own(assistant, ask):
    options = AnswerOptions(max_new_tokens=12, attention=assistant.settings.attention)
    completion = assistant.completions.begin([ChatMessage("user", "Who kept the light?")], options)
    text = "".join(token.text_delta for token in completion)
    assert completion.report.text == text == ask(temperature=None).choices[0].message.content
