"""Where a round of speculative decoding lies while it runs: fixed tensors, so that its steps can be captured.

A round's drafts follow one another on the device, each fed what the one before drew; the host hears of them in one copy
at the end, together with what the verification drew. Knows nothing of sessions or of how anything is computed.
"""

from __future__ import annotations

import torch

from quest_core.config import ModelConfig
from quest_core.decode.draft_length import MOST_DRAFTS
from quest_core.decode.sampling import SamplingTensors

# Tokens of a round: the one that is fed first, and the drafts.
MOST_ROWS = 1 + MOST_DRAFTS


class RoundBuffers:
    """What drafts and verifications read and write; one set for all sessions, which take turns.

    Attributes:
        token_ids: int64 [MOST_ROWS], the token that the round begins with, and its drafts.
        drawn_ids: int64 [MOST_ROWS], what the verification drew after each of them.
        highest: float32 [MOST_ROWS], of these draws.
        drafts: int64 [1], how many tokens have been drafted in this round.
        length_tokens: int32 [1], of the sequence with the token that is fed next; each draft counts it up.
        page_table: int32 [window_pages].
        noise: float32 [MOST_ROWS, vocab_size], the chance of the draw after each token, by drafts and by verification.
        logits: float32 [MOST_ROWS, vocab_size], of the verification.
        sampling: parameters, and the tokens that the answer had drawn before the round.
        drafting: the same for the draft that is due, with the tokens drafted before it.
        verifying: the same for each row of the verification.
        report: uint8; token_ids, drawn_ids and highest in one piece, to reach the host in one copy.
    """

    def __init__(self, model: ModelConfig, page_size: int, device: torch.device) -> None:
        self.window_pages = -(-model.context_tokens // page_size)
        self.report = torch.zeros(MOST_ROWS * (8 + 8 + 4), dtype=torch.uint8, device=device)
        self.token_ids, self.drawn_ids, self.highest = split_report(self.report)
        self.drafts = torch.zeros(1, dtype=torch.int64, device=device)
        self.length_tokens = torch.zeros(1, dtype=torch.int32, device=device)
        self.page_table = torch.zeros(self.window_pages, dtype=torch.int32, device=device)
        self.noise = torch.ones((MOST_ROWS, model.vocab_size), device=device)
        self.logits = torch.zeros((MOST_ROWS, model.vocab_size), device=device)
        self.sampling = SamplingTensors(model.vocab_size, device)
        drawn = torch.zeros((1 + MOST_ROWS, model.vocab_size), dtype=torch.bool, device=device)
        self.drafting = self.sampling.for_other_draws(torch.zeros((), device=device), self.sampling.noise, drawn[0])
        self.verifying = tuple(
            self.sampling.for_other_draws(self.highest[row], self.noise[row], drawn[1 + row])
            for row in range(MOST_ROWS)
        )


def split_report(report: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Views of a report: the round's tokens and those drawn after them, int64, and the draws' highest, float32."""
    ids, highest = report[: 16 * MOST_ROWS].view(torch.int64), report[16 * MOST_ROWS :].view(torch.float32)
    return ids[:MOST_ROWS], ids[MOST_ROWS:], highest
