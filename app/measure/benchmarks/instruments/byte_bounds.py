"""How many bytes one step cannot avoid reading: divided by the bandwidth of a copy, the time it cannot beat.

Counts what the algorithm reads, whatever a kernel makes of it. Queries, results and page tables are too small to count.
"""

from __future__ import annotations

from kernels.contract import CacheLayout
from quest_core.cache.cache_layout import scored_bytes, vector_bytes
from quest_core.config import ModelConfig, QuestConfig
from quest_core.decode.attention import page_budget


def dense_attention_bytes(kv_heads: int, vector_bytes: int, context_tokens: int) -> int:
    """Keys and values of the whole context, in one layer.

    Args:
        vector_bytes: of one token's key, or value, of one kv head; the scale of an 8-bit one included.
    """
    return 2 * kv_heads * vector_bytes * context_tokens


def quest_attention_bytes(layout: CacheLayout, context_tokens: int, token_budget: int) -> int:
    """Summaries, and keys and values of the selected pages, in one layer."""
    selected_tokens = min(token_budget // layout.page_size * layout.page_size, context_tokens)
    selected = dense_attention_bytes(layout.kv_heads, vector_bytes(layout), selected_tokens)
    return layout.kv_heads * scored_bytes(layout, -(-context_tokens // layout.page_size)) + selected


def step_kv_bytes(model: ModelConfig, quest: QuestConfig, context_tokens: int, layout: CacheLayout) -> int:
    """What one decode step reads of the cache, in all layers."""
    dense = dense_attention_bytes(layout.kv_heads, vector_bytes(layout), context_tokens)
    # A context within the budget is read whole, and its summaries are not needed.
    pages = -(-context_tokens // layout.page_size)
    if quest.attention == "dense" or page_budget(quest, layout.page_size).reads_all(pages):
        return model.num_layers * dense
    sparse = quest_attention_bytes(layout, context_tokens, quest.token_budget)
    dense_layers = min(quest.dense_layers, model.num_layers)
    return dense_layers * dense + (model.num_layers - dense_layers) * sparse


def step_weight_bytes(total_bytes: int, embedding_bytes: int, tied_embeddings: bool) -> int:
    """What one decode step reads of the weights: all, but of an embedding that is not the output head too next to none.

    Args:
        total_bytes: of all parameters, a tied embedding counted once.
        embedding_bytes: of the embedding.
    """
    return total_bytes if tied_embeddings else total_bytes - embedding_bytes
