"""The engine against transformers, and its queue of jobs."""

from __future__ import annotations

import threading

import pytest
import torch

from quest_core.config import EngineConfig, QuestConfig, SamplingConfig
from quest_core.engine import Engine
from quest_core.model.model_source import ModelError
from tests.quest_core.conftest import FAMILIES

DENSE = QuestConfig(attention="dense")


def transformers_greedy(model: torch.nn.Module, token_ids: list[int], new_tokens: int) -> list[int]:
    ids = torch.tensor([token_ids])
    output = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens, do_sample=False, eos_token_id=None,
        pad_token_id=0,
    )
    return output[0, len(token_ids) :].tolist()


# Every family, and one at the ends of pages too.
@pytest.mark.parametrize(
    ("any_family", "length"),
    [(family, length) for family in FAMILIES for length in (17, 250)] + [("smollm2", length) for length in (1, 15, 16)],
    indirect=["any_family"],
)
def test_dense_greedy_equals_transformers_in_every_family(any_family, generate, prompt, length):
    reference, engine = any_family
    session = engine.new_session()
    tokens = generate(session, prompt(length), DENSE, SamplingConfig(max_new_tokens=24))
    assert tokens == transformers_greedy(reference, prompt(length), 24)
    session.close()


def test_full_budget_quest_equals_dense_in_every_family(any_family, generate, prompt):
    _, engine = any_family
    sampling = SamplingConfig(max_new_tokens=24)
    dense = generate(engine.new_session(), prompt(250), DENSE, sampling)
    quest = generate(engine.new_session(), prompt(250), QuestConfig(token_budget=640), sampling)
    assert quest == dense


def test_logits_equal_transformers(any_family, never, prompt):
    reference, engine = any_family
    session = engine.new_session()
    list(session.prefill(prompt(250), never))
    with torch.inference_mode():
        expected = reference(torch.tensor([prompt(250)])).logits[0, -1]
    torch.testing.assert_close(session.logits, expected, rtol=1e-4, atol=1e-4)
    session.close()


@pytest.mark.slow
def test_embedded_model_equals_transformers(embedded_engine, generate):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = embedded_engine.model_folder
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "The lighthouse stood on a rock a mile from the shore; nobody had lived in it since the storm of 1911. " * 12
    token_ids = tokenizer(text)["input_ids"]
    session = embedded_engine.new_session()
    tokens = generate(session, token_ids, DENSE, SamplingConfig(max_new_tokens=32))
    assert tokens == transformers_greedy(reference, token_ids, 32)
    quest = generate(session, token_ids, QuestConfig(token_budget=8192), SamplingConfig(max_new_tokens=32))
    assert quest == tokens
    session.close()


def test_jobs_run_in_order_and_report_their_place(tiny_engine):
    release, ran = threading.Event(), []

    def blocking(cancellation):
        release.wait(10)
        ran.append("first")
        yield 1

    def following(cancellation):
        ran.append("second")
        yield 2

    first, second = tiny_engine.submit(blocking), tiny_engine.submit(following)
    assert second.jobs_ahead == 1
    release.set()
    assert list(second) == [2]
    assert list(first) == [1]
    assert ran == ["first", "second"]
    assert second.jobs_ahead == 0


def test_a_cancelled_waiting_job_never_starts(tiny_engine):
    release = threading.Event()

    def blocking(cancellation):
        release.wait(10)
        yield from ()

    def never_started(cancellation):
        raise AssertionError("a cancelled job ran")

    tiny_engine.submit(blocking)
    cancelled = tiny_engine.submit(never_started)
    cancelled.cancel()
    release.set()
    assert list(cancelled) == []


def test_an_error_reaches_the_consumer_and_the_engine_lives_on(tiny_engine):
    def failing(cancellation):
        yield "before"
        raise RuntimeError("broken on purpose")

    job = tiny_engine.submit(failing)
    assert next(job) == "before"
    with pytest.raises(RuntimeError, match="on purpose"):
        next(job)
    assert list(tiny_engine.submit(lambda cancellation: iter([7]))) == [7]


def test_prefill_can_be_cancelled_between_chunks(tiny_engine, prompt):
    session = tiny_engine.new_session()

    def work(cancellation):
        for progress in session.prefill(prompt(500), cancellation):
            cancellation.request()
            yield progress

    progress = list(tiny_engine.submit(work))
    assert [event.done_tokens for event in progress] == [0]
    assert session.context_tokens == 0


def test_decode_can_be_cancelled_between_tokens(tiny_engine, prompt, never):
    session = tiny_engine.new_session()

    def work(cancellation):
        list(session.prefill(prompt(40), never))
        for step in session.decode(DENSE, SamplingConfig(max_new_tokens=50), cancellation):
            if step.step == 4:
                cancellation.request()
            yield step.token_id

    assert len(list(tiny_engine.submit(work))) == 5


def test_the_pool_evicts_the_session_idle_longest(tiny_folder, prompt):
    engine = Engine.load(str(tiny_folder), EngineConfig(device="cpu", dtype="float32", page_size=16, cached_contexts=1))
    sessions = [engine.new_session() for _ in range(3)]

    def fill(session, length):
        def work(cancellation):
            yield from session.prefill(prompt(length), cancellation)

        return list(engine.submit(work))

    fill(sessions[0], 300)
    fill(sessions[1], 300)
    fill(sessions[2], 300)  # 900 tokens do not fit a pool of 656
    assert sessions[0].context_tokens == 0
    assert sessions[1].context_tokens == sessions[2].context_tokens == 300
    assert fill(sessions[0], 300)[0].reused_tokens == 0
    engine.close()
    assert engine.memory()["free_pages"] == 41 - 2 * 19


def test_loading_refuses_what_is_not_supported(tmp_path):
    from transformers import GPT2Config

    GPT2Config(n_layer=1, n_embd=8, n_head=2).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="gpt2.*not supported.*Qwen3"):
        Engine.load(str(tmp_path), EngineConfig(device="cpu"))


def test_a_missing_model_says_what_to_give(tmp_path):
    for model in (str(tmp_path / "nowhere"), "no/such/place", str(tmp_path / "gone.gguf")):
        with pytest.raises(ModelError, match="There is no model"):
            Engine.load(model, EngineConfig(device="cpu", cache_dir=tmp_path))
    with pytest.raises(ModelError, match="no config.json"):
        Engine.load(str(tmp_path), EngineConfig(device="cpu"))
    with pytest.raises(ModelError, match="local cache"):
        Engine.load("owner/never-downloaded", EngineConfig(device="cpu", offline=True))
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + b"\0" * 64)
    with pytest.raises(ModelError, match="broken.gguf cannot be read"):
        Engine.load(str(tmp_path / "broken.gguf"), EngineConfig(device="cpu", cache_dir=tmp_path))
