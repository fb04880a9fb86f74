"""What a decode step reads: what selections score, and where everything is read without a selection."""

from __future__ import annotations

import pytest
import torch

import kernels.cpu
from kernels.contract import LayerCache, PageBudget, SelectedPages, SequenceView
from quest_core.cache.cache_layout import SUMMARY_OF, cache_layout
from quest_core.config import SELECTIONS, EngineConfig, ModelConfig, QuestConfig, RopeConfig, SamplingConfig
from quest_core.decode.attention import DecodeAttention, QuestMethod
from quest_core.decode.read_costs import costs_for
from quest_core.engine import Engine

COSTS = costs_for("cpu", 3)
CONTEXT = 75  # tokens; the last page of 16 holds 11
MODEL = ModelConfig("llama", 10, 8, 8, 3, 6, 2, 64, 1e-5, RopeConfig(), 512)


def layout_of(selection: str):
    config = EngineConfig(page_size=16, selection=selection, summary_bits=16)
    return cache_layout(MODEL, config, torch.float32)


def score(selection: str, queries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Random keys [tokens, kv_heads, head_dim], and what their pages are ranked by, [kv_heads, pages]."""
    keys = torch.randn((CONTEXT, 2, 64), generator=torch.Generator().manual_seed(3))
    layout = layout_of(selection)
    specs = layout.specs(6).items()
    cache = LayerCache(layout, **{name: torch.full(spec.shape, float("nan")) for name, spec in specs})
    page_table = torch.tensor([4, 0, 5, 2, 1], dtype=torch.int32)
    sequence = SequenceView(page_table, torch.tensor([CONTEXT], dtype=torch.int32))
    kernels.cpu.append_keys_values(keys, keys, cache, sequence)
    scores = kernels.cpu.page_scores(queries.flatten(0, 1), cache, sequence, MODEL.softmax_scale)
    return keys, scores.softmax(dim=2).mean(dim=1) if layout.summary.scores_are_logits else scores[:, 0] * 8.0


def test_every_selection_has_its_summary():
    assert tuple(SUMMARY_OF) == SELECTIONS


def test_quest_is_the_mean_of_the_papers_scores():
    queries = torch.randn((2, 3, 64), generator=torch.Generator().manual_seed(1))
    keys, scores = score("quest", queries)
    for page in range(5):
        page_keys = keys[page * 16 : (page + 1) * 16].transpose(0, 1)  # [kv_heads, tokens, head_dim]
        low, high = page_keys.amin(1, keepdim=True), page_keys.amax(1, keepdim=True)
        expected = torch.maximum(queries * low, queries * high).sum(2).mean(1)
        torch.testing.assert_close(scores[:, page], expected)


def test_mean_is_the_mean_of_estimated_attention():
    queries = torch.randn((2, 3, 64), generator=torch.Generator().manual_seed(1))
    keys, scores = score("mean", queries)
    means = torch.stack([keys[page * 16 : (page + 1) * 16].mean(0) for page in range(5)], dim=1)
    expected = (torch.einsum("hgd,hpd->hgp", queries, means) / 8.0).softmax(2).mean(1)
    torch.testing.assert_close(scores, expected)


@pytest.mark.parametrize(
    ("quest", "layer", "pages", "budget"),
    [
        (QuestConfig(attention="dense"), 2, 1000, None),
        (QuestConfig(attention="exact"), 2, 1000, None),
        (QuestConfig(token_budget=100, dense_layers=2), 1, 1000, None),
        (QuestConfig(token_budget=100, dense_layers=2), 2, 6, None),
        (QuestConfig(token_budget=100, dense_layers=2), 2, 7, PageBudget(6, 1, 1)),
        (QuestConfig(token_budget=100, sink_pages=0, recent_pages=2), 0, 7, PageBudget(6, 0, 2)),
    ],
    ids=["dense", "exact", "a dense layer", "within the budget", "beyond it", "the first layer"],
)
def test_where_pages_are_selected(quest, layer, pages, budget):
    attention = DecodeAttention(quest, layout_of("mean"), MODEL.num_layers, MODEL.softmax_scale, kernels.cpu, COSTS)
    table = torch.zeros(pages, dtype=torch.int32)
    # What counts is the table: where steps are captured in graphs, only the device knows the length.
    assert attention.budget_for(layer, SequenceView(table, torch.ones(1, dtype=torch.int32))) == budget


def test_a_budget_below_what_is_always_read_is_refused():
    with pytest.raises(ValueError, match="holds 2 pages of 16 tokens, but 3 pages"):
        DecodeAttention(QuestConfig(token_budget=32), layout_of("mean"), 3, 0.125, kernels.cpu, COSTS)


class RecordingOperators:
    """Stands for a device's operators: notes which of the two was asked, and with what."""

    def __init__(self) -> None:
        self.asked: list[tuple] = []
        ids = torch.tensor([[0, 2, 5, 6, 7, 8], [0, 1, 5, 6, 7, 8]], dtype=torch.int32)
        self.selected = SelectedPages(ids, torch.tensor([6, 6], dtype=torch.int32), torch.tensor([0.1, 0.3]))

    def dense_decode_attention(self, query, cache, sequence, scale) -> torch.Tensor:
        self.asked.append(("dense", cache, scale))
        return query + 1.0

    def choose_and_attend(self, query, cache, sequence, budget, scale) -> tuple[torch.Tensor, SelectedPages]:
        self.asked.append((budget, cache, scale))
        return query + 2.0, self.selected


def test_each_layer_asks_the_operator_that_it_needs_and_what_it_selects_is_traced():
    operators, layout, query = RecordingOperators(), layout_of("mean"), torch.zeros(6, 64)
    quest = QuestConfig(token_budget=100, dense_layers=1)
    attention = QuestMethod(operators, layout, MODEL.num_layers, MODEL.softmax_scale, COSTS).begin_answer(quest)
    sequence = SequenceView(torch.arange(9, dtype=torch.int32), torch.tensor([140], dtype=torch.int32))
    attended = [attention(layer, query, f"cache {layer}", sequence) for layer in range(MODEL.num_layers)]
    budget, scale = PageBudget(6, 1, 1), MODEL.softmax_scale
    assert operators.asked == [("dense", "cache 0", scale), (budget, "cache 1", scale), (budget, "cache 2", scale)]
    assert [float(one.mean()) for one in attended] == [1.0, 2.0, 2.0]
    reads = attention.finish_step(9)
    assert reads.page_reads.tolist() == [[2] * 9, *[[2, 1, 1, 0, 0, 2, 2, 2, 2]] * 2]
    assert reads.missed_mass == pytest.approx(0.2)


@pytest.mark.parametrize("selection", SELECTIONS)
def test_every_selection_decodes_and_is_exact_with_a_full_budget(tiny_folder, generate, prompt, selection):
    config = EngineConfig(device="cpu", dtype="float32", page_size=8, selection=selection)
    engine = Engine.load(str(tiny_folder), config)
    sampling = SamplingConfig(max_new_tokens=12)
    dense = generate(engine.new_session(), prompt(250), QuestConfig(attention="dense"), sampling)
    assert generate(engine.new_session(), prompt(250), QuestConfig(token_budget=272), sampling) == dense
    assert len(generate(engine.new_session(), prompt(250), QuestConfig(token_budget=64), sampling)) == 12
    engine.close()
