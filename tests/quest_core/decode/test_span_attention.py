"""What tokens attend to, against plain attention; chunks and groups of heads make no difference."""

from __future__ import annotations

import pytest
import torch

import quest_core.decode.span_attention
from quest_core.decode.span_attention import SpanAttention


@pytest.mark.parametrize("groups", [1, 3])
def test_softmax_mass_is_that_of_causal_attention(groups, monkeypatch):
    torch.manual_seed(0)
    queries, keys = torch.randn(5, 2 * groups, 8), torch.randn(2, 27, 8)
    logits = torch.einsum("thd,hcd->htc", queries, keys.repeat_interleave(groups, dim=0)) * 0.3
    later = torch.arange(27)[None] > torch.arange(22, 27)[:, None]
    mass = logits.masked_fill(later, float("-inf")).softmax(dim=2).mean(dim=0)
    expected = torch.stack([mass[:, 1:4].sum(1), mass[:, 9:22].sum(1)], dim=1)
    for most in (1, 1 << 24):
        monkeypatch.setattr(quest_core.decode.span_attention, "_MOST_LOGITS", most)
        attention = SpanAttention([(1, 4), (9, 22)], 0.3)
        attention(0, queries, keys)
        torch.testing.assert_close(attention.mass()[0], expected)
