"""Messages of other programs have the tokens that Transformers' own chat templates give them, family by family."""

from __future__ import annotations

import json

import pytest

from app.chat.prompt.message_prompt import ChatMessage, MessagePrompts
from app.chat.prompt.template import ChatTokenizer
from app.errors import UserFacingError
from tests.app.chat.prompt.test_template_rendering import CHATML, LLAMA_3, MISTRAL, QWEN_3
from tests.app.conftest import write_tokenizer

FAMILIES = {"chatml": CHATML, "llama3": LLAMA_3, "mistral": MISTRAL, "qwen3": QWEN_3}
DIALOGUES = {
    "question": [("user", "Who lives here?")],
    "with blanks": [("system", "  Be brief. "), ("user", "\n Who?  \n"), ("assistant", " She.\n"), ("user", "Why? ")],
    "other scripts": [("system", ""), ("user", "漢字 — “é” 🦉 " * 40)],
    "a past thought": [("user", "Who?"), ("assistant", "<think>\nHm.\n</think>\n\nShe."), ("user", "Why?")],
}


def messages_of(dialogue):
    return [ChatMessage(role, content) for role, content in dialogue]


def tokens(prompts, dialogue):
    return prompts.prompt(messages_of(dialogue)).token_ids


@pytest.fixture(params=FAMILIES)
def folder(request, tmp_path):
    return write_tokenizer(tmp_path, FAMILIES[request.param])


@pytest.fixture
def prompts(folder):
    prompts = MessagePrompts(ChatTokenizer(folder))
    yield prompts
    prompts.close()


def test_tokens_are_those_of_transformers(folder, prompts):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder)
    for name, dialogue in DIALOGUES.items():
        told = [{"role": role, "content": content} for role, content in dialogue]
        expected = theirs.apply_chat_template(told, add_generation_prompt=True, enable_thinking=False)["input_ids"]
        assert tokens(prompts, dialogue) == expected, name


def test_control_tokens_of_a_content_are_plain_text(folder, prompts):
    tokenizer = ChatTokenizer(folder)
    harmless = tokens(prompts, [("user", "One"), ("assistant", "Two"), ("user", "Three")])
    control = {token for token in harmless if tokenizer.decode([token], keep_control=True) in tokenizer.control_texts}
    forged = "".join(tokenizer.control_texts)
    forgery = tokens(prompts, [("user", forged), ("assistant", "Two"), ("user", "Three " + forged)])
    for token in control:
        assert forgery.count(token) == harmless.count(token)
    assert tokenizer.decode(forgery, keep_control=True).count(forged) == 2


def test_a_lone_surrogate_is_a_question_mark(prompts):
    assert tokens(prompts, [("user", "a\ud800b")]) == tokens(prompts, [("user", "a?b")])


def test_messages_that_a_template_refuses_are_refused_with_its_reason(tmp_path):
    prompts = MessagePrompts(ChatTokenizer(write_tokenizer(tmp_path, MISTRAL)))
    with pytest.raises(UserFacingError, match="roles must alternate"):
        tokens(prompts, [("user", "One"), ("user", "Two")])
    # The process goes on.
    assert tokens(prompts, [("user", "One")])
    prompts.close()


def test_where_a_template_knows_no_system_message_it_opens_the_question(tmp_path):
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
    prompts = MessagePrompts(ChatTokenizer(write_tokenizer(tmp_path, template)))
    with_role = tokens(prompts, [("system", "Be brief."), ("user", "Who?")])
    assert with_role == tokens(prompts, [("user", "Be brief.\n\nWho?")])
    prompts.close()


def test_a_model_without_a_template_is_asked_in_plain_text(tmp_path):
    tokenizer = ChatTokenizer(write_tokenizer(tmp_path, None))
    prompts = MessagePrompts(tokenizer)
    told = tokens(prompts, [("system", "Be brief."), ("user", "Who?")])
    assert tokenizer.decode(told).strip() == "Be brief.\n\nQuestion: Who?\nAnswer:"


def test_a_process_that_was_killed_is_started_anew(prompts):
    first = tokens(prompts, [("user", "One")])
    prompts.close()
    assert tokens(prompts, [("user", "One")]) == first


def test_a_template_that_hangs_is_given_up_and_not_tried_again(monkeypatch):
    from app.chat.prompt import template_rendering
    from app.chat.prompt.template_rendering import RenderLimits, TemplateFault, TemplateRenderer

    started = []
    start = template_rendering.start_python
    monkeypatch.setattr(template_rendering, "start_python", lambda name: started.append(name) or start(name))
    loops = "{% for a in range(99999) %}" * 4 + "{% endfor %}" * 4
    renderer = TemplateRenderer(
        "{% if messages|length > 1 %}" + loops + "{% endif %}fine", {}, RenderLimits(wall_clock_s=3.0)
    )
    assert renderer.render([{"role": "user", "content": "x"}]) == "fine"
    with pytest.raises(TemplateFault, match="took too much time"):
        renderer.render([{"role": "user", "content": "x"}] * 2)
    assert len(started) == 1
    assert renderer.render([{"role": "user", "content": json.dumps("x")}]) == "fine"
    renderer.close()
