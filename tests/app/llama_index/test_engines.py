"""Engines and memory of llama-index-core over the embedded model and the library, without a network."""

from __future__ import annotations

import asyncio

from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.chat_engine import CondensePlusContextChatEngine, ContextChatEngine, SimpleChatEngine
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.llms import ChatMessage
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.query_engine import CitationQueryEngine, RetrieverQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer

from app.library.sample_books import SAMPLE_BOOKS
from app.llama_index import QuestLLM

QUESTION = "What is the lighthouse keeper called?"


def test_a_query_engine_answers_from_the_library(quest):
    engine = RetrieverQueryEngine.from_args(quest.retriever(), llm=quest.llm)
    response = engine.query(QUESTION)
    assert "Ingrid" in response.response
    assert response.source_nodes[0].metadata["name"] == "harbour.txt"


def test_a_query_engine_streams_and_waits_in_threads(quest):
    retriever = quest.retriever(similarity_top_k=1)
    streaming = RetrieverQueryEngine.from_args(retriever, llm=quest.llm, streaming=True)
    whole = RetrieverQueryEngine.from_args(retriever, llm=quest.llm).query(QUESTION).response
    assert "".join(streaming.query(QUESTION).response_gen) == whole
    assert asyncio.run(RetrieverQueryEngine.from_args(retriever, llm=quest.llm).aquery(QUESTION)).response == whole


def test_texts_longer_than_the_window_are_packed_by_the_models_own_tokens(quest):
    helper = PromptHelper.from_llm_metadata(quest.llm.metadata, tokenizer=quest.llm.token_ids)
    long = [text.text for text in quest.reader.load_data([SAMPLE_BOOKS[0].document_id], per="document")] * 4
    synthesizer = get_response_synthesizer(llm=quest.llm, prompt_helper=helper)
    packed = helper.repack(synthesizer._text_qa_template, long, llm=quest.llm)
    assert len(packed) > 1
    window = quest.llm.metadata.context_window - quest.llm.metadata.num_output
    assert all(len(quest.llm.token_ids(text)) < window for text in packed)


def test_a_citation_query_engine_numbers_the_sources(quest):
    book = SAMPLE_BOOKS[0].document_id
    engine = CitationQueryEngine(quest.retriever([book], similarity_top_k=2), llm=quest.llm)
    response = engine.query("Where did the Swallow want to fly?")
    assert response.response
    assert [node.text.partition("\n")[0] for node in response.source_nodes] == ["Source 1:", "Source 2:"]
    for node in response.source_nodes:
        page = quest.assistant.library.document(book).document_pages[node.metadata["page_index"]]
        assert node.text.partition("\n")[2].strip() in page.text and node.metadata["page_label"] == page.page_label


def test_a_chat_engine_remembers(quest):
    memory = ChatMemoryBuffer.from_defaults(llm=quest.llm, tokenizer_fn=quest.llm.token_ids)
    engine = SimpleChatEngine.from_defaults(llm=quest.llm, memory=memory, system_prompt="Answer briefly.")
    first = engine.chat("My name is Ingrid.").response
    second = engine.chat("Who am I?").response
    said = memory.get_all()
    assert [(message.role.value, message.content) for message in said] == [
        ("user", "My name is Ingrid."),
        ("assistant", first),
        ("user", "Who am I?"),
        ("assistant", second),
    ]
    assert second == quest.llm.chat([ChatMessage(role="system", content="Answer briefly."), *said[:-1]]).message.content


def test_memory_leaves_out_what_does_not_fit_by_the_models_tokens(quest):
    memory = ChatMemoryBuffer.from_defaults(token_limit=40, tokenizer_fn=quest.llm.token_ids)
    engine = SimpleChatEngine.from_defaults(llm=quest.llm, memory=memory)
    for _ in range(3):
        engine.chat("Tell me of the sea and of the ships on it.")
    assert len(memory.get_all()) == 6 and 0 < len(memory.get()) < 6


def test_a_context_chat_engine_answers_with_passages(quest):
    memory = ChatMemoryBuffer.from_defaults(llm=quest.llm, tokenizer_fn=quest.llm.token_ids)
    engine = ContextChatEngine.from_defaults(quest.retriever(similarity_top_k=1), llm=quest.llm, memory=memory)
    answer = engine.chat(QUESTION)
    assert "Ingrid" in answer.response
    assert answer.source_nodes[0].metadata["name"] == "harbour.txt"
    # Of a greeting nothing is found, and it is answered all the same.
    greeted = engine.stream_chat("Hi!")
    assert "".join(greeted.response_gen) and greeted.source_nodes == []
    assert len(memory.get_all()) == 4


def test_a_chat_engine_that_condenses_questions(quest):
    engine = CondensePlusContextChatEngine.from_defaults(quest.retriever(similarity_top_k=1), llm=quest.llm)
    assert engine.chat(QUESTION).response
    assert asyncio.run(engine.achat("And what does she keep?")).response


def test_llama_index_counts_the_models_own_tokens(quest):
    counter = TokenCountingHandler(tokenizer=quest.llm.token_ids)
    llm = QuestLLM(quest.assistant, temperature=0, max_tokens=4, callback_manager=CallbackManager([counter]))
    raw = llm.complete("Tell me of the sea.").raw
    assert counter.completion_llm_token_count == raw["usage"]["completion_tokens"] == 4
    assert counter.prompt_llm_token_count == raw["usage"]["prompt_tokens"]
