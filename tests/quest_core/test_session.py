"""Sessions: reuse, fork, truncate, limits; and what Quest reads."""

from __future__ import annotations

import pytest

from quest_core.config import QuestConfig, SamplingConfig

DENSE = QuestConfig(attention="dense")
QUEST = QuestConfig(token_budget=96, dense_layers=2)
EXACT = QuestConfig("exact", token_budget=96, dense_layers=2)
EVERY = pytest.mark.parametrize("quest", [DENSE, QUEST, EXACT], ids=["dense", "quest", "exact"])


@EVERY
@pytest.mark.parametrize("cut", [1, 63, 64, 65, 200])
def test_truncating_equals_a_fresh_prefill(new_session, generate, prompt, quest, cut):
    sampling = SamplingConfig(max_new_tokens=12)
    long, short = prompt(300), prompt(300)[:cut] + prompt(90, seed=1)
    session = new_session()
    generate(session, long, quest, sampling)
    assert generate(session, short, quest, sampling) == generate(new_session(), short, quest, sampling)


@EVERY
@pytest.mark.parametrize("length", [160, 167])
def test_forks_do_not_disturb_each_other(new_session, never, prompt, quest, length):
    sampling = SamplingConfig(max_new_tokens=40)
    session = new_session()
    list(session.prefill(prompt(length), never))
    forks = [session.fork(), session.fork()]
    streams = [fork.decode(quest, sampling, never) for fork in forks]
    # In turns, so that each writes right after the other on pages that were shared.
    tokens = list(zip(*(map(lambda step: step.token_id, stream) for stream in streams), strict=True))
    expected = [step.token_id for step in session.decode(quest, sampling, never)]
    assert [left for left, _ in tokens] == [right for _, right in tokens] == expected


def test_closing_gives_every_page_back(tiny_engine, new_session, never, prompt):
    before = tiny_engine.memory()["free_pages"]
    session = new_session()
    list(session.prefill(prompt(100), never))
    fork = session.fork()
    list(fork.decode(DENSE, SamplingConfig(max_new_tokens=30), never))
    assert tiny_engine.memory()["free_pages"] < before
    session.close()
    fork.close()
    assert tiny_engine.memory()["free_pages"] == before


def test_prefill_reuses_the_common_prefix(new_session, generate, prompt, never):
    session = new_session()
    answer = generate(session, prompt(150), DENSE, SamplingConfig(max_new_tokens=10))
    follow_up = prompt(150) + answer + prompt(20, seed=3)
    first = next(iter(session.prefill(follow_up, never)))
    assert first.reused_tokens == 150 + 9  # the last token drawn never entered the cache


def test_repeating_a_prompt_computes_one_token(new_session, generate, prompt, never):
    session = new_session()
    sampling = SamplingConfig(max_new_tokens=8)
    first = generate(session, prompt(150), DENSE, sampling)
    progress = list(session.prefill(prompt(150), never))
    assert progress[0].reused_tokens == 149
    assert [step.token_id for step in session.decode(DENSE, sampling, never)] == first


def test_prefill_in_chunks_equals_prefill_at_once(new_session, generate, prompt):
    session = new_session()
    expected = generate(session, prompt(300), DENSE, SamplingConfig(max_new_tokens=8))
    for chunk in (1, 7, 16, 33, 300):
        other = new_session()
        other.prefill_chunk_tokens = chunk
        assert generate(other, prompt(300), DENSE, SamplingConfig(max_new_tokens=8)) == expected


def test_too_long_a_prompt_is_refused(new_session, prompt, never):
    session = new_session()
    with pytest.raises(ValueError, match="641 tokens do not fit the window of 640"):
        list(session.prefill(prompt(641), never))
    with pytest.raises(ValueError, match="nothing to prefill"):
        list(session.prefill([], never))
    with pytest.raises(ValueError, match="finished prefill"):
        list(session.decode(DENSE, SamplingConfig(), never))


def test_finish_reasons(new_session, generate, prompt, never):
    session = new_session()
    list(session.prefill(prompt(630), never))
    steps = list(session.decode(QUEST, SamplingConfig(max_new_tokens=100), never))
    assert (len(steps), steps[-1].finish_reason, steps[-1].context_tokens) == (11, "context", 640)
    list(session.prefill(prompt(30), never))
    steps = list(session.decode(DENSE, SamplingConfig(max_new_tokens=5), never))
    assert [step.finish_reason for step in steps] == [None] * 4 + ["length"]
    stop = steps[2].token_id
    list(session.prefill(prompt(30), never))
    steps = list(session.decode(DENSE, SamplingConfig(max_new_tokens=5, stop_token_ids=(stop,)), never))
    assert steps[-1].finish_reason == "stop"
    assert steps[-1].token_id == stop


def test_the_trace_tells_what_each_step_read(new_session, never, prompt):
    session = new_session()
    list(session.prefill(prompt(300), never))
    steps = list(session.decode(QUEST, SamplingConfig(max_new_tokens=30), never))
    assert steps[0].reads is None
    assert steps[0].kv_bytes_read == 0
    for step in steps[1:]:
        pages = -(-step.context_tokens // 16)
        reads = step.reads
        assert reads.page_reads.shape == (4, pages)
        assert reads.always_read_pages == (0, pages - 2, pages - 1)
        assert (reads.page_reads[:2] == reads.kv_heads).all()  # the dense layers
        sparse = reads.page_reads[2:]
        assert (sparse.sum(axis=1) == 6 * reads.kv_heads).all()  # 96 tokens are 6 pages
        assert (sparse[:, list(reads.always_read_pages)] == reads.kv_heads).all()
        page_bytes = 16 * 2 * 8 * 4
        summary_bytes = 2 * reads.kv_heads * pages * (8 + 4)  # a mean key in int8 and its scale
        assert step.kv_bytes_read == int(reads.page_reads.sum()) * page_bytes + summary_bytes
        assert step.kv_bytes_dense == 4 * reads.kv_heads * pages * page_bytes


def test_the_papers_setting_keeps_only_the_current_page(new_session, never, prompt):
    session = new_session()
    list(session.prefill(prompt(300), never))
    quest = QuestConfig(token_budget=96, sink_pages=0, recent_pages=0)
    reads = list(session.decode(quest, SamplingConfig(max_new_tokens=3), never))[-1].reads
    assert reads.always_read_pages == (18,)
    assert (reads.page_reads[2:].sum(axis=1) == 6 * reads.kv_heads).all()


def test_the_budget_may_change_between_turns(new_session, never, prompt):
    session = new_session()
    list(session.prefill(prompt(300), never))
    fractions = []
    for budget in (64, 128, 640):
        step = list(session.decode(QuestConfig(token_budget=budget), SamplingConfig(max_new_tokens=2), never))[-1]
        fractions.append(step.kv_bytes_read / step.kv_bytes_dense)
        list(session.prefill(session.tokens + [5], never))
    assert fractions[0] < fractions[1] < fractions[2] == 1.0


def test_too_small_a_budget_is_refused(new_session, never, prompt):
    session = new_session()
    list(session.prefill(prompt(30), never))
    with pytest.raises(ValueError, match="budget of 32 holds 2 pages of 16 tokens, but 3 pages"):
        list(session.decode(QuestConfig(token_budget=32), SamplingConfig(), never))


def test_a_seed_repeats_and_another_differs(new_session, generate, prompt):
    session = new_session()

    def draw(seed):
        sampling = SamplingConfig(temperature=1.5, top_p=0.95, max_new_tokens=20, seed=seed)
        return generate(session, prompt(50), QUEST, sampling)

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)




@EVERY
def test_scoring_equals_prefill_where_attention_is_exact(new_session, never, prompt, quest):
    """The log-probabilities of fed tokens against those of ever longer prefills."""
    if quest is QUEST:
        quest = QuestConfig(token_budget=640)
    session, other = new_session(), new_session()
    tokens = prompt(160)
    list(session.prefill(tokens[:150], never))
    scores = [token.log_probability for token in session.score(tokens[150:], quest, never)]
    for index, score in enumerate(scores):
        list(other.prefill(tokens[: 150 + index], never))
        assert score == pytest.approx(float(other.logits.log_softmax(-1)[tokens[150 + index]]), abs=1e-3)
    assert session.tokens == tokens
