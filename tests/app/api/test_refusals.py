"""What the API refuses, by name and in OpenAI's shape."""

from __future__ import annotations

import json

import httpx
import pytest

from app.errors import UserFacingError

CHAT = "/v1/chat/completions"


@pytest.fixture
def post(address, model_name):
    """Return `post(fields, path)`: status and error of a chat request with these fields."""

    def send(fields: dict, path: str = CHAT) -> tuple[int, dict]:
        body = {"model": model_name, "max_tokens": 2, "temperature": 0, **fields}
        if path == CHAT:
            body = {"messages": [{"role": "user", "content": "Hi"}], **body}
        reply = httpx.post(address + path, content=json.dumps(body), timeout=60, trust_env=False)
        return reply.status_code, reply.json().get("error")

    return send


TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"tools": [TOOL]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"audio": {"voice": "a"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"presence_penalty": -1}, "presence_penalty"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format"),
        ({"store": True}, "store"),
        ({"surprise": 1}, "surprise"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 10**400}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"\ud800": 1}, "?"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"seed": 1.5}, "seed"),
        ({"seed": 1 << 70}, "seed"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stop": ["a", ""]}, "stop"),
        ({"stop": list("abcde")}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"other": 1}}, "stream_options.other"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [TOOL]}]}, "messages[0].tool_calls"),
        ({"quest": {"attention": "psychic"}}, "quest.attention"),
        ({"quest": {"budget": 5}}, "quest.budget"),
        ({"quest": 5}, "quest"),
        ({"documents": "all"}, "documents"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_field_is_refused_by_name(post, fields, param):
    status, error = post(fields)
    assert status == 400 and error["param"] == param and param in error["message"]
    assert error["type"] == "invalid_request_error" and set(error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "a", "echo": True}, "echo"),
        ({"prompt": "a", "best_of": 2}, "best_of"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "logprobs": 6}, "logprobs"),
        ({"prompt": "a", "documents": ["x"]}, "documents"),
    ],
)
def test_a_field_of_a_text_is_refused_by_name(post, fields, param):
    status, error = post(fields, "/v1/completions")
    assert status == 400 and error["param"] == param


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1, "tools": [], "tool_choice": "none", "response_format": {"type": "text"}, "logit_bias": {}},
        {"user": "me", "metadata": {"a": "b"}, "store": False, "frequency_penalty": 0.0, "stop": None},
        {"messages": [{"role": "user", "content": "lone \ud800 surrogate"}]},
    ],
)
def test_fields_that_ask_for_nothing_are_taken(address, model_name, fields):
    body = {"model": model_name, "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}], **fields}
    reply = httpx.post(address + CHAT, content=json.dumps(body), timeout=60, trust_env=False)
    assert reply.status_code == 200, reply.text


def test_another_model_is_not_found(post, client):
    import openai

    status, error = post({"model": "gpt-4o"})
    assert status == 404 and error["code"] == "model_not_found" and error["param"] == "model"
    with pytest.raises(openai.NotFoundError, match="gpt-4o"):
        client.models.retrieve("gpt-4o")
    assert post({"model": None})[1]["param"] == "model"


def test_default_is_the_model_that_is_loaded(client, model_name):
    assert client.models.retrieve("default").id == model_name
    reply = client.chat.completions.create(model="default", messages=[{"role": "user", "content": "Hi"}], max_tokens=1)
    assert reply.model == model_name


@pytest.mark.parametrize(("failure", "status"), [(UserFacingError("Mend this."), 400), (ValueError("a secret"), 500)])
def test_a_failure_of_a_route_has_the_same_shape(assistant, address, monkeypatch, failure, status):
    def fail():
        raise failure

    monkeypatch.setattr(assistant, "status", fail)
    reply = httpx.get(f"{address}/v1/models", trust_env=False)
    assert reply.status_code == status and set(reply.json()["error"]) == {"message", "type", "param", "code"}
    assert "secret" not in reply.text and "Traceback" not in reply.text


def test_a_prompt_longer_than_the_window(post):
    status, error = post({"messages": [{"role": "user", "content": "light " * 3000}]})
    assert status == 400 and error["code"] == "context_length_exceeded" and error["param"] == "messages"
    status, error = post({"max_tokens": 5000})
    assert status == 400 and "1,024" in error["message"]


def test_options_that_the_engine_refuses(post):
    status, error = post({"quest": {"attention": "quest", "token_budget": 1}})
    assert status == 400 and "budget" in error["message"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/v1/embeddings", 501, "not_supported"),
        ("POST", "/v1/responses", 501, "not_supported"),
        ("GET", "/v1/nothing", 404, "unknown_url"),
        ("GET", "/v1/", 404, "unknown_url"),
        ("GET", CHAT, 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
    ],
)
def test_other_routes_answer_in_the_same_shape(address, method, path, status, code):
    reply = httpx.request(method, address + path, trust_env=False)
    assert reply.status_code == status and reply.json()["error"]["code"] == code


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_object(address, body):
    reply = httpx.post(address + CHAT, content=body, trust_env=False)
    assert reply.status_code == 400 and reply.json()["error"]["type"] == "invalid_request_error"


def test_embeddings_through_the_client(client):
    import openai

    with pytest.raises(openai.APIStatusError, match="Embeddings"):
        client.embeddings.create(model="x", input="y")
