"""Steps of one answer: when a token counts, what is launched ahead, and what is told of the reads.

Eager steps, and static ones without a graph, over the tiny model; `test_decode_graph` compares the two in sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch

from quest_core.cache.cache_layout import dense_bytes
from quest_core.cache.paged_kv_cache import PagePool, PoolExhausted, SequenceCache
from quest_core.config import QuestConfig, SamplingConfig
from quest_core.decode import decode_graph
from quest_core.decode.answer_steps import EagerSteps, StaticSteps, append_token
from quest_core.decode.decode_graph import StepGraphs, run_eagerly
from quest_core.decode.read_costs import ChoosingCosts
from quest_core.decode.sampling import NotANumberError, Sampler

LENGTH = 158  # ten pages of 16, of which the last holds 14: the third step begins the eleventh
QUEST = QuestConfig(token_budget=96)


@pytest.fixture(autouse=True)
def short_tables(monkeypatch):
    """So that static steps do not read the whole window."""
    monkeypatch.setattr(decode_graph, "MIN_TABLE_PAGES", 8)


class Answer:
    """A prefilled sequence and steps that answer it greedily."""

    def __init__(self, engine, token_ids: list[int]) -> None:
        self.engine = engine
        self.token_ids = token_ids
        self.cache = SequenceCache(engine.pool, 640)
        self.logits = engine.decoder.prefill(torch.tensor(token_ids), self.cache)

    def sampler(self) -> Sampler:
        return Sampler(SamplingConfig(), self.engine.model_config.vocab_size, self.engine.device)

    def eager(self, quest: QuestConfig = QUEST, traced: bool = True) -> EagerSteps:
        attention = self.engine.quest_method.begin_answer(quest)
        return EagerSteps(self.engine.decoder, self.cache, attention, traced, self.sampler())

    def static(self, quest: QuestConfig = QUEST, traced: bool = True) -> StaticSteps:
        attention = self.engine.quest_method.begin_answer(quest)
        graphs = StepGraphs(self.engine.decoder, self.engine.pool, run_eagerly)
        return StaticSteps(graphs, self.cache, attention, traced, self.sampler())


@pytest.fixture
def answer(tiny_engine, prompt) -> Iterator[Callable[[], Answer]]:
    """Makes answers to the same prompt."""
    made = []

    def make() -> Answer:
        made.append(Answer(tiny_engine, prompt(LENGTH)))
        return made[-1]

    yield make
    for each in made:
        each.cache.truncate(0)


def drawn(steps: EagerSteps | StaticSteps, logits: torch.Tensor, count: int) -> list[int]:
    """The first tokens of an answer, one step at a time."""
    token_ids = [steps.begin(logits)]
    while len(token_ids) < count:
        steps.launch()
        token_ids.append(steps.finish().token_id)
    return token_ids


def test_the_first_token_comes_from_the_prompts_logits(answer):
    made = answer()
    likeliest = int(made.logits.argmax())
    assert made.eager().begin(made.logits) == made.static().begin(made.logits) == likeliest
    assert made.cache.length_tokens == LENGTH


def test_eager_steps_count_a_token_when_they_finish(answer):
    made = answer()
    steps = made.eager()
    first = steps.begin(made.logits)
    steps.launch()
    assert (made.cache.length_tokens, steps.launched, steps.looks_ahead) == (LENGTH, 0, False)
    finished = steps.finish()
    assert made.cache.length_tokens == LENGTH + 1
    assert finished.token_id == int(finished.logits.argmax())
    # What was fed is the token drawn before.
    other, attention = answer(), made.engine.quest_method.begin_answer(QUEST)
    logits = append_token(made.engine.decoder, other.cache, torch.tensor([first]), attention)
    torch.testing.assert_close(finished.logits, logits)
    assert other.cache.length_tokens == LENGTH + 1


def test_in_flight_steps_do_not_count(answer):
    expected = drawn((other := answer()).eager(), other.logits, 4)
    made = answer()
    steps = made.static()
    assert steps.begin(made.logits) == expected[0]
    steps.launch()
    steps.launch()
    assert (steps.launched, made.cache.length_tokens) == (2, LENGTH)
    assert steps.finish().token_id == expected[1]
    assert (steps.launched, made.cache.length_tokens) == (1, LENGTH + 1)
    steps.launch()
    # It begins a page, for which there is room before the one at hand is counted.
    assert made.cache.num_pages == 11
    finished = [steps.finish() for _ in range(2)]
    assert [step.token_id for step in finished] == expected[2:]
    # Each keeps its own logits, whatever ran on the buffers since.
    assert [int(step.logits.argmax()) for step in finished] == expected[2:]
    assert (steps.launched, made.cache.length_tokens) == (0, LENGTH + 3)


def test_a_step_too_many_leaves_no_trace(answer):
    expected = drawn((other := answer()).eager(), other.logits, 6)
    made = answer()
    steps = made.static()
    steps.begin(made.logits)
    steps.launch()
    steps.launch()
    logits = steps.finish().logits
    # The second is given up; another answer goes on from the first.
    assert drawn(made.static(), logits, 5) == expected[1:]


def test_reads_are_told_where_they_are_traced(answer):
    told = {}
    for name in ("eager", "static"):
        for traced in (True, False):
            made = answer()
            steps = getattr(made, name)(traced=traced)
            steps.begin(made.logits)
            steps.launch()
            told[name, traced] = steps.finish().reads
    assert told["eager", False] is told["static", False] is None
    eager, static = told["eager", True], told["static", True]
    assert eager.page_reads.tolist() == static.page_reads.tolist()
    # Six of ten pages for each kv head.
    assert eager.page_reads.sum() == eager.page_reads.shape[0] * eager.kv_heads * 6
    assert eager.missed_mass == pytest.approx(static.missed_mass, abs=1e-5)
    assert 0.0 < eager.missed_mass < 1.0


def test_within_the_budget_a_static_step_misses_nothing(answer):
    """Though its table is longer than the budget, so that pages were scored."""
    made = answer()
    steps = made.static(QuestConfig(token_budget=160))
    steps.begin(made.logits)
    reads = []
    for _ in range(3):
        steps.launch()
        reads.append(steps.finish().reads)
    assert [step.missed_mass is None for step in reads] == [True, True, False]
    assert [bool((step.page_reads < step.kv_heads).any()) for step in reads] == [False, False, True]


def test_reading_all_gives_way_to_choosing_within_an_answer(answer, monkeypatch):
    """Ten pages are read whole because that is not slower; the third step has eleven, and chooses six."""
    layout = (method := answer().engine.quest_method).layout
    monkeypatch.setattr(method, "costs", ChoosingCosts(dense_bytes(layout, 4), summary_factor=0.0))
    auto = replace(QUEST, attention="auto")
    dense = drawn((made := answer()).eager(QuestConfig(attention="dense")), made.logits, 3)
    # Quest over the same tokens, all of them prefilled: what dense steps appended must be as good to choose from.
    fresh = Answer(made.engine, [*made.token_ids, *dense[:2]])
    chosen = EagerSteps(made.engine.decoder, fresh.cache, method.begin_answer(QUEST), True, fresh.sampler())
    chosen.begin(torch.nn.functional.one_hot(torch.tensor(dense[2]), made.logits.numel()).float())
    chosen.launch()
    expected = chosen.finish()
    fresh.cache.truncate(0)
    for name in ("eager", "static"):
        steps = getattr(made := answer(), name)(auto)
        assert steps.begin(made.logits) == dense[0]
        finished = []
        for _ in range(3):
            steps.launch()
            finished.append(steps.finish())
        assert [step.token_id for step in finished[:2]] == dense[1:]
        layers = made.engine.model_config.num_layers
        assert [step.reads.dense_layers for step in finished] == [layers, layers, 0]
        assert [step.reads.missed_mass is None for step in finished] == [True, True, False]
        assert finished[2].reads.page_reads.tolist() == expected.reads.page_reads.tolist()
        torch.testing.assert_close(finished[2].logits, expected.logits, rtol=1e-4, atol=1e-4)


def test_exact_is_dense_where_nothing_can_be_drafted(answer):
    """As on a GPU; a budget is not looked at then."""
    dense = drawn((made := answer()).eager(QuestConfig(attention="dense")), made.logits, 5)
    for attention in ("dense", "exact"):
        steps = (made := answer()).static(QuestConfig(attention=attention, token_budget=16))
        assert drawn(steps, made.logits, 5) == dense


def test_a_full_pool_changes_nothing(tiny_engine, prompt):
    pool = PagePool(tiny_engine.pool.layout, tiny_engine.model_config.num_layers, 2, torch.device("cpu"))
    cache = SequenceCache(pool, 640)
    logits = tiny_engine.decoder.prefill(torch.tensor(prompt(31)), cache)
    attention = tiny_engine.quest_method.begin_answer(QuestConfig(attention="dense"))
    append_token(tiny_engine.decoder, cache, torch.tensor([5]), attention)
    with pytest.raises(PoolExhausted):
        append_token(tiny_engine.decoder, cache, torch.tensor([6]), attention)
    assert (cache.length_tokens, cache.num_pages) == (32, 2)
    graphs = StepGraphs(tiny_engine.decoder, pool, run_eagerly)
    sampler = Sampler(SamplingConfig(), tiny_engine.model_config.vocab_size, tiny_engine.device)
    steps = StaticSteps(graphs, cache, tiny_engine.quest_method.begin_answer(QUEST), False, sampler)
    steps.begin(logits)
    with pytest.raises(PoolExhausted):
        steps.launch()
    assert (steps.launched, cache.length_tokens) == (0, 32)


def test_what_cannot_be_drawn_or_read_is_refused(answer):
    made = answer()
    for steps in (made.eager(), made.static()):
        with pytest.raises(NotANumberError):
            steps.begin(made.logits * float("nan"))
    with pytest.raises(ValueError, match="always read"):
        made.static(QuestConfig(token_budget=32), traced=False)
