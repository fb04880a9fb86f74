"""The specification itself, anchored to independent formulations in torch and transformers."""

from __future__ import annotations

import pytest
import torch

from kernels import reference
from kernels.contract import RopeTables, SelectedPages

CPU = torch.device("cpu")


@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("tokens", [1, 16, 50])
def test_dense_attention_is_sdpa(make_case, tokens, group):
    case = make_case(CPU, torch.float32, tokens, group=group)
    attended = reference.naive_dense_decode_attention(case.query, case.cache, case.sequence, 0.3)
    keys, values = (part.transpose(0, 1).repeat_interleave(group, 0)[None] for part in (case.keys, case.values))
    expected = torch.nn.functional.scaled_dot_product_attention(case.query[None, :, None], keys, values, scale=0.3)
    torch.testing.assert_close(attended, expected[0, :, 0], rtol=1e-5, atol=1e-5)


def test_sparse_attention_is_sdpa_under_a_mask(make_case):
    case = make_case(CPU, torch.float32, 90, kv_heads=1, group=3)
    page_ids = torch.tensor([[0, 2, 5, -1]], dtype=torch.int32)
    selected = SelectedPages(page_ids, torch.tensor([3], dtype=torch.int32))
    attended = reference.naive_sparse_decode_attention(case.query, case.cache, case.sequence, selected, 0.125)
    mask = torch.zeros(90, dtype=torch.bool)
    for page in (0, 2, 5):
        mask[page * 16 : (page + 1) * 16] = True
    keys, values = (part.transpose(0, 1).expand(3, -1, -1)[None] for part in (case.keys, case.values))
    expected = torch.nn.functional.scaled_dot_product_attention(
        case.query[None, :, None], keys, values, attn_mask=mask[None], scale=0.125
    )
    torch.testing.assert_close(attended, expected[0, :, 0], rtol=1e-5, atol=1e-5)


def test_scores_are_the_papers_formula(make_case):
    case = make_case(CPU, torch.float32, 75, group=3)
    scores = reference.naive_page_scores(case.query, case.cache, case.sequence, 1.0)[:, 0]
    for head in range(2):
        for page in range(5):
            keys = case.keys[page * 16 : (page + 1) * 16, head]
            low, high = keys.amin(0), keys.amax(0)
            group = case.query[head * 3 : head * 3 + 3]
            expected = torch.maximum(group * low, group * high).sum(1).mean()
            torch.testing.assert_close(scores[head, page], expected, rtol=1e-5, atol=1e-5)


def test_rms_norm_is_torchs():
    hidden, weight, residual = torch.randn(5, 48), torch.randn(48), torch.randn(5, 48)
    expected = torch.nn.functional.rms_norm(hidden + residual, (48,), weight, 1e-5)
    total = residual.clone()
    torch.testing.assert_close(reference.naive_rms_norm(hidden, weight, 1e-5, total), expected)
    torch.testing.assert_close(total, hidden + residual)


def test_rope_is_transformers():
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    queries, keys, positions = torch.randn(7, 6, 32), torch.randn(7, 2, 32), torch.randint(0, 40, (7,))
    angles = torch.rand(40, 16) * 6
    cosine, sine = (torch.cat([part, part], -1)[positions][None] for part in (angles.cos(), angles.sin()))
    expected = apply_rotary_pos_emb(queries.transpose(0, 1)[None], keys.transpose(0, 1)[None], cosine, sine)
    reference.naive_apply_rope(queries, keys, RopeTables(angles.cos(), angles.sin()), positions.int())
    torch.testing.assert_close(queries, expected[0][0].transpose(0, 1))
    torch.testing.assert_close(keys, expected[1][0].transpose(0, 1))


def test_swiglu_is_torchs():
    gate_up = torch.randn(3, 20)
    expected = torch.nn.functional.silu(gate_up[:, :10]) * gate_up[:, 10:]
    torch.testing.assert_close(reference.naive_swiglu(gate_up), expected)
