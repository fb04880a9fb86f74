"""The decoder over its cache: however tokens come in, the same logits; and what each way leaves in the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch

from kernels.contract import SequenceView
from quest_core.cache.paged_kv_cache import PagePool, SequenceCache
from quest_core.config import QuestConfig, RopeConfig
from quest_core.decode.attention import DecodeAttention
from quest_core.decoder import Decoder

DENSE = QuestConfig(attention="dense")
QUEST = QuestConfig(token_budget=64, dense_layers=1)


@pytest.fixture
def decoder(tiny_engine) -> Decoder:
    return tiny_engine.decoder


@pytest.fixture
def new_cache(tiny_engine) -> Iterator[Callable[[], SequenceCache]]:
    """Makes empty sequences of the engine's pool, whose pages are given back."""
    made = []

    def make() -> SequenceCache:
        made.append(SequenceCache(tiny_engine.pool, 640))
        return made[-1]

    yield make
    for cache in made:
        cache.truncate(0)


@pytest.fixture
def attention(tiny_engine) -> Callable[[QuestConfig], DecodeAttention]:
    return tiny_engine.quest_method.begin_answer


def prefilled(decoder: Decoder, cache: SequenceCache, *chunks: list[int], observe=None) -> torch.Tensor:
    """The logits after the last of these chunks."""
    for chunk in chunks:
        logits = decoder.prefill(torch.tensor(chunk), cache, observe)
    return logits


def decoded(decoder: Decoder, cache: SequenceCache, token_id: int, attention) -> torch.Tensor:
    cache.reserve(1)
    return decoder.decode(torch.tensor([token_id]), cache.pool, cache.view(1), attention)


def test_a_prefill_in_chunks_continues_where_the_last_one_ended(decoder, new_cache, prompt):
    tokens = prompt(90)
    whole, chunked = new_cache(), new_cache()
    expected = prefilled(decoder, whole, tokens)
    logits = prefilled(decoder, chunked, tokens[:1], tokens[1:50], tokens[50:])
    assert expected.shape == (decoder.config.vocab_size,) and expected.dtype == torch.float32
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    assert whole.length_tokens == chunked.length_tokens == 90


def test_a_decode_step_gives_what_a_prefill_of_its_token_gives(decoder, new_cache, attention, prompt):
    tokens = prompt(48)  # the step's token begins a page
    expected = prefilled(decoder, new_cache(), [*tokens, 7])
    cache = new_cache()
    prefilled(decoder, cache, tokens)
    torch.testing.assert_close(decoded(decoder, cache, 7, attention(DENSE)), expected, atol=1e-4, rtol=1e-4)
    # Whoever calls counts the token: until then the step may be run again, with another.
    assert cache.length_tokens == 48
    again = decoded(decoder, cache, 8, attention(DENSE))
    assert not torch.allclose(again, expected, atol=1e-2)
    torch.testing.assert_close(decoded(decoder, cache, 7, attention(DENSE)), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("quest", [DENSE, QUEST], ids=["dense", "quest"])
def test_any_other_attention_is_asked_layer_by_layer(decoder, new_cache, attention, prompt, quest):
    """And gives what the device's whole step gives, which attends itself."""
    cache = new_cache()
    prefilled(decoder, cache, prompt(150))
    own = attention(quest)
    expected = decoded(decoder, cache, 7, own)
    inner, asked = attention(quest), []

    def watched(layer, query, layer_cache, sequence):
        asked.append((layer, tuple(query.shape), int(sequence.length_tokens)))
        return inner(layer, query, layer_cache, sequence)

    torch.testing.assert_close(decoded(decoder, cache, 7, watched), expected, atol=1e-4, rtol=1e-4)
    model = decoder.config
    shape = (model.num_query_heads, model.head_dim)
    assert asked == [(layer, shape, 151) for layer in range(model.num_layers)]
    reads, expected_reads = inner.finish_step(cache.num_pages), own.finish_step(cache.num_pages)
    assert reads.page_reads.tolist() == expected_reads.page_reads.tolist()
    assert (reads.page_reads < model.num_kv_heads).any() == (quest is QUEST)


@pytest.mark.parametrize("rows", [2, 5])
def test_verified_rows_get_the_bits_of_dense_steps(decoder, new_cache, attention, prompt, rows):
    """Of the device's whole step; 158 tokens end two tokens before a page does."""
    together, alone, drafts = new_cache(), new_cache(), prompt(rows, seed=3)
    for cache in (together, alone):
        prefilled(decoder, cache, prompt(158))
    together.reserve(rows)
    logits = decoder.verify(torch.tensor(drafts), together.pool, together.view(rows))
    for row, token_id in enumerate(drafts):
        assert torch.equal(logits[row], decoded(decoder, alone, token_id, attention(DENSE)))
        alone.advance(1)


@pytest.mark.slow
def test_rows_verified_by_the_gpus_kernels_get_the_bits_of_dense_steps(decoder, new_cache, prompt, monkeypatch):
    """One layer and the head in Triton's interpreter; a page table longer than the sequence, as graphs have it."""
    triton = pytest.importorskip("triton")
    if not triton.knobs.runtime.interpret:
        pytest.skip("kernels are compiled where there is a GPU; test_on_gpu.py runs them there")
    import kernels.gpu

    together, alone, drafts = new_cache(), new_cache(), prompt(4, seed=3)
    for cache in (together, alone):
        prefilled(decoder, cache, prompt(158))
        cache.reserve(4)
    monkeypatch.setattr(decoder, "kernels", kernels.gpu)
    monkeypatch.setattr(decoder, "_whole_step", None)
    weights = decoder._decode_weights
    monkeypatch.setattr(decoder, "_decode_weights", replace(weights, layers=weights.layers[:1]))

    def dense(layer, query, cache, sequence):
        return kernels.gpu.dense_decode_attention(query, cache, sequence, decoder.config.softmax_scale)

    def view(cache, length_tokens):
        return SequenceView(cache.whole_page_table, torch.tensor([length_tokens], dtype=torch.int32))

    logits = decoder.verify(torch.tensor(drafts), together.pool, view(together, 162))
    assert logits.shape == (4, decoder.config.vocab_size)
    for row, token_id in enumerate(drafts):
        fed = torch.tensor([token_id])
        assert torch.equal(logits[row], decoder.decode(fed, alone.pool, view(alone, 159 + row), dense))
    for pages in alone.pool.layers[0].tensors:
        assert torch.equal(pages[together.page_table.long()], pages[alone.page_table.long()])


def test_an_observer_sees_each_layer_of_each_chunk(decoder, new_cache, prompt):
    model, tokens, seen = decoder.config, prompt(50), []
    prefilled(decoder, new_cache(), tokens[:30], tokens[30:], observe=lambda *inputs: seen.append(inputs))
    assert [layer for layer, _, _ in seen] == [*range(model.num_layers)] * 2
    for new_tokens, context_tokens, chunk in ((30, 30, seen[: model.num_layers]), (20, 50, seen[model.num_layers :])):
        for _, queries, keys in chunk:
            assert queries.shape == (new_tokens, model.num_query_heads, model.head_dim)
            assert keys.shape == (model.num_kv_heads, context_tokens, model.head_dim)


def test_a_rope_variant_has_its_own_positions_and_leaves_the_first_alone(decoder, new_cache, attention, prompt):
    tokens = prompt(60)
    other = decoder.with_rope(RopeConfig(kind="linear", factor=4.0))
    before = prefilled(decoder, new_cache(), tokens)
    stretched = new_cache()
    prefilled(other, stretched, tokens)
    # Steps and prefills take the same positions, and others than the model's own.
    step = decoded(other, stretched, 7, attention(DENSE))
    torch.testing.assert_close(step, prefilled(other, new_cache(), [*tokens, 7]), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(step, prefilled(decoder, new_cache(), [*tokens, 7]), atol=1e-2)
    torch.testing.assert_close(prefilled(decoder, new_cache(), tokens), before)
    assert other.config.rope.factor == 4.0 and decoder.config.rope.factor == 1.0


def test_a_warm_up_writes_to_the_first_page_alone(tiny_engine, decoder):
    pool = PagePool(tiny_engine.pool.layout, decoder.config.num_layers, 3, torch.device("cpu"))
    for tensor in pool.cache.tensors:
        tensor.fill_(3)
    decoder.warm_up(pool)
    assert all((tensor[:, 1:] == 3).all() for tensor in pool.cache.tensors)
    assert not (pool.cache.key_pages[:, 0] == 3).all()
