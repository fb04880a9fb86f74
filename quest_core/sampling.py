"""Draw the next token from logits, on the device.

Greedy, or temperature with top-k, top-p and min-p, after a repetition penalty. Knows nothing of text.
"""

from __future__ import annotations

import torch

from quest_core.config import SamplingConfig


class Sampler:
    """Draws the tokens of one answer; the same seed and logits give the same tokens.

    The repetition penalty (arXiv 1909.05858) counts the tokens of this answer only: a document in the prompt must stay
    quotable.

    Args:
        config: how to draw.
        vocab_size: length of the logits.
        device: of the logits.
    """

    def __init__(self, config: SamplingConfig, vocab_size: int, device: torch.device) -> None:
        self._config = config
        self._generator = torch.Generator(device)
        if config.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(config.seed)
        self._drawn = torch.zeros(vocab_size, dtype=torch.bool, device=device)

    @torch.inference_mode()
    def draw(self, logits: torch.Tensor) -> torch.Tensor:
        """Draw one token.

        Args:
            logits: float32 [vocab_size]; not changed.

        Returns:
            int64 [1] on the device.
        """
        config = self._config
        if config.repetition_penalty != 1.0:
            penalised = torch.where(logits > 0, logits / config.repetition_penalty, logits * config.repetition_penalty)
            logits = torch.where(self._drawn, penalised, logits)
        if config.temperature == 0.0:
            token = logits.argmax(keepdim=True)
        else:
            probabilities = filter_probabilities(logits / config.temperature, config)
            token = torch.multinomial(probabilities, 1, generator=self._generator)
        self._drawn[token] = True
        return token


def filter_probabilities(logits: torch.Tensor, config: SamplingConfig) -> torch.Tensor:
    """Probabilities that top-k, top-p and min-p leave, not normalised again; the likeliest token always stays.

    Args:
        logits: float32 [vocab_size], already divided by the temperature.

    Returns:
        float32 [vocab_size], 0 where a token is excluded.
    """
    probabilities = logits.softmax(dim=-1)
    if config.min_p > 0.0:
        probabilities = probabilities.where(probabilities >= config.min_p * probabilities.max(), 0.0)
    if config.top_k or config.top_p < 1.0:
        ordered, order = probabilities.sort(descending=True, stable=True)
        if config.top_k:
            ordered[config.top_k :] = 0.0
        if config.top_p < 1.0:
            # A token stays if the likelier ones alone do not yet reach top_p of what is left.
            likelier = ordered.cumsum(0) - ordered
            ordered = ordered.where(likelier < config.top_p * ordered.sum(), 0.0)
        probabilities = torch.zeros_like(probabilities).scatter_(0, order, ordered)
    return probabilities
