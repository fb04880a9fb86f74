"""Answers over the library: citations, statistics, and nothing that stays."""

from __future__ import annotations

import pytest

openai = pytest.importorskip("openai")


@pytest.fixture(scope="module")
def document_id(assistant, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("book") / "harbour.txt"
    path.write_text("The keeper's daughter kept the light every night of the winter. " * 6, encoding="utf-8")
    conversation = assistant.new_conversation(kept=False)
    *_, entry = assistant.read_document(conversation, path)
    assistant.delete_conversation(conversation.conversation_id)
    return entry.document_id


def test_documents_are_listed(client, document_id):
    listed = client.get("/documents", cast_to=object)
    assert {"id": document_id, "object": "document", "name": "harbour.txt", "state": "read", "pages": 1} in listed[
        "data"
    ]


def test_an_answer_over_a_document(assistant, ask, document_id):
    before = len(assistant._parts.access.present())
    reply = ask(extra_body={"documents": [document_id]})
    assert reply.choices[0].message.content
    assert isinstance(reply.citations, list)
    assert reply.quest["document"]["tokens_in_context"] > 50 and reply.quest["attention"] == "auto"
    assert reply.usage.prompt_tokens > 50 and reply.usage.completion_tokens <= 12
    assert len(assistant._parts.access.present()) == before
    # The document itself was read before.
    again = ask("Why?", extra_body={"documents": [document_id]})
    assert again.usage.prompt_tokens_details.cached_tokens >= 50


def test_it_is_the_pages_own_answer(assistant, ask, document_id):
    from app.chat.answers.answer import AnswerOptions

    conversation = assistant.new_conversation(kept=False)
    assistant.attach_document(conversation, document_id)
    options = AnswerOptions(max_new_tokens=12)
    (*_, finished) = assistant.answer(conversation, "Who kept the light?", options)
    assistant.delete_conversation(conversation.conversation_id)
    reply = ask(extra_body={"documents": [document_id]})
    assert reply.choices[0].message.content == finished.report.answer
    assert len(reply.citations) == len(finished.report.citations)


def test_a_stream_ends_with_citations(ask, document_id):
    chunks = list(ask(stream=True, extra_body={"documents": [document_id]}))
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    assert isinstance(chunks[-1].citations, list) and "prefill_s" in chunks[-1].quest
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == ask(extra_body={"documents": [document_id]}).choices[0].message.content


def test_earlier_messages_are_turns(ask, document_id):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who kept the light?"},
        {"role": "assistant", "content": "The daughter."},
        {"role": "user", "content": "When?"},
    ]
    reply = ask(messages=messages, extra_body={"documents": [document_id]})
    shorter = ask(messages=[messages[0], messages[3]], extra_body={"documents": [document_id]})
    assert reply.usage.prompt_tokens > shorter.usage.prompt_tokens


def test_an_unknown_document(ask):
    with pytest.raises(openai.NotFoundError) as raised:
        ask(extra_body={"documents": ["nowhere"]})
    assert raised.value.code == "document_not_found" and raised.value.param == "documents[0]"


def test_messages_that_are_no_conversation(ask, document_id):
    for roles in (["assistant"], ["user", "user"], ["user", "assistant"], ["system"]):
        with pytest.raises(openai.BadRequestError, match="messages"):
            ask(messages=[{"role": role, "content": "x"} for role in roles], extra_body={"documents": [document_id]})


def test_an_empty_question(ask, document_id):
    with pytest.raises(openai.BadRequestError, match="empty"):
        ask(" ", extra_body={"documents": [document_id]})
