"""Draw the next token from logits, on the device.

Greedy, or temperature with top-k, top-p and min-p, after a repetition penalty. Knows nothing of text.

A draw is a function of tensors alone, so that it can be captured in a CUDA graph: what differs from request to request
are numbers on the device, and chance comes in as noise that is drawn before.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch

from quest_core.config import SamplingConfig

# Parts that a GPU searches at once for the largest of many values.
MOST_PARTS = 128
# Nobody can tell a draw at such a temperature from a greedy one, and logits divided by less overflow.
GREEDY_TEMPERATURE = 1e-6


class NotANumberError(ValueError):
    """The logits hold NaN or infinity, so that no token can be chosen.

    Args:
        value: the one that was found.
    """

    def __init__(self, value: float) -> None:
        super().__init__(
            f"The model's output is not a number ({value}): its weights are damaged, or too large for the precision it "
            "runs with. Get the model's files again, or start with --dtype float32."
        )


@dataclass(frozen=True)
class SamplingKind:
    """Which of the costly operations a draw needs, whatever their parameters.

    Args:
        greedy: take the likeliest.
        ranked: sort, for top-k and top-p.
        penalised: lower what was drawn before.
    """

    greedy: bool
    ranked: bool
    penalised: bool

    @classmethod
    def of(cls, config: SamplingConfig) -> SamplingKind:
        greedy = config.temperature < GREEDY_TEMPERATURE
        ranked = not greedy and (config.top_k > 0 or config.top_p < 1.0)
        return cls(greedy, ranked, config.repetition_penalty != 1.0)


class SamplingTensors:
    """What a draw reads besides the logits; buffers that are written in place.

    Args:
        vocab_size: length of the logits.
        device: of the logits.
        highest: float32 [], where each draw notes the largest of the values it chose from; made if None.
    """

    def __init__(self, vocab_size: int, device: torch.device, highest: torch.Tensor | None = None) -> None:
        self.highest = torch.zeros((), device=device) if highest is None else highest
        self.temperature = torch.ones((), device=device)
        self.min_p = torch.zeros((), device=device)
        self.top_p = torch.ones((), device=device)
        self.top_k = torch.zeros((), dtype=torch.long, device=device)
        self.repetition_penalty = torch.ones((), device=device)
        self.noise = torch.ones(vocab_size, device=device)  # exponentially distributed
        self.drawn = torch.zeros(vocab_size, dtype=torch.bool, device=device)  # the answer's tokens

    def set(self, config: SamplingConfig, drawn_token_ids: list[int]) -> None:
        """Take over an answer's parameters and the tokens it has drawn so far."""
        self.temperature.fill_(config.temperature)
        self.min_p.fill_(config.min_p)
        # So that no rounding of a sum excludes the last tokens where nothing is to be excluded.
        self.top_p.fill_(config.top_p if config.top_p < 1.0 else float("inf"))
        self.top_k.fill_(config.top_k or len(self.drawn))
        self.repetition_penalty.fill_(config.repetition_penalty)
        self.drawn.zero_()
        if config.repetition_penalty != 1.0 and drawn_token_ids:
            self.drawn[torch.tensor(drawn_token_ids, device=self.drawn.device)] = True

    def fork(self) -> SamplingTensors:
        """The same for draws that these tensors shall not know of."""
        other = copy.copy(self)
        other.highest, other.noise, other.drawn = self.highest.clone(), self.noise.clone(), self.drawn.clone()
        return other

    def for_other_draws(self, highest: torch.Tensor, noise: torch.Tensor, drawn: torch.Tensor) -> SamplingTensors:
        """The same parameters, also once they change, with chance, drawn tokens and a note of the highest elsewhere."""
        other = copy.copy(self)
        other.highest, other.noise, other.drawn = highest, noise, drawn
        return other

    def draw_noise(self, kind: SamplingKind, generator: torch.Generator) -> None:
        """Chance for the next draw; the only part of it that cannot be captured."""
        if not kind.greedy:
            self.noise.exponential_(generator=generator)


@torch.inference_mode()
def draw_token(
    logits: torch.Tensor, previous: torch.Tensor | None, kind: SamplingKind, tensors: SamplingTensors
) -> torch.Tensor:
    """Draw one token by an exponential race: of independent exponential times with these rates the first wins.

    The repetition penalty (arXiv 1909.05858) counts the tokens of this answer only: a document in the prompt must stay
    quotable.

    Args:
        logits: float32 [vocab_size]; not changed.
        previous: int64 [1], the answer's token before; None at its first.
        kind: what is to be done.
        tensors: with what; `previous` is noted in `drawn`, and how high the winner was in `highest`.

    Returns:
        int64 [1] on the device, a token of the vocabulary whatever the logits; `read_token` tells whether it means
        anything.
    """
    if kind.penalised:
        if previous is not None:
            tensors.drawn.index_fill_(0, previous, True)
        penalty = tensors.repetition_penalty
        logits = torch.where(tensors.drawn, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
    if kind.greedy:
        values = logits
    else:
        probabilities = filter_probabilities(logits / tensors.temperature, kind, tensors)
        # Noise of 0 would let a token win that is excluded.
        values = probabilities / tensors.noise.clamp(min=torch.finfo(torch.float32).tiny)
    highest, index = find_highest(values)
    tensors.highest.copy_(highest[0])
    return index


def read_token(token_id: torch.Tensor, highest: torch.Tensor) -> int:
    """A drawn token as a number.

    Args:
        token_id: int64 [1], as `draw_token` returned it.
        highest: float32 [], as it noted it.

    Raises:
        NotANumberError: if the logits were no numbers.
    """
    if not math.isfinite(value := float(highest)):
        raise NotANumberError(value)
    return int(token_id)


def find_highest(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The highest of floating [vocab_size], the first of equal ones; NaN is higher than any number.

    Returns:
        Its value, [1], and its index, int64 [1].
    """
    if values.device.type != "cpu":
        return find_highest_in_parts(values)
    index = values.argmax(keepdim=True)
    return values.gather(0, index), index


def find_highest_in_parts(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As `find_highest`, in two steps: on one long row torch leaves most of a GPU idle (28 us, of 128,256 elements)."""
    parts = math.gcd(len(values), MOST_PARTS)
    highest, indices = values.view(parts, -1).max(dim=1)
    value, part = highest.max(dim=0, keepdim=True)
    return value, part * (len(values) // parts) + indices.gather(0, part)


def filter_probabilities(logits: torch.Tensor, kind: SamplingKind, tensors: SamplingTensors) -> torch.Tensor:
    """Probabilities that top-k, top-p and min-p leave, not normalised again; the likeliest token always stays.

    Args:
        logits: float32 [vocab_size], already divided by the temperature.

    Returns:
        float32 [vocab_size], 0 where a token is excluded.
    """
    probabilities = logits.softmax(dim=-1)
    probabilities = probabilities.masked_fill(probabilities < tensors.min_p * probabilities.max(), 0.0)
    if not kind.ranked:
        return probabilities
    ordered, order = probabilities.sort(descending=True, stable=True)
    ranks = torch.arange(len(ordered), device=ordered.device)
    ordered = ordered.masked_fill(ranks >= tensors.top_k, 0.0)
    # A token stays if the likelier ones alone do not yet reach top_p of what is left.
    likelier = ordered.cumsum(0) - ordered
    ordered = ordered.masked_fill(likelier >= tensors.top_p * ordered.sum(), 0.0)
    return torch.zeros_like(probabilities).scatter_(0, order, ordered)


class Sampler:
    """Draws the tokens of one answer; the same seed and logits give the same tokens.

    Args:
        config: how to draw.
        vocab_size: length of the logits.
        device: of the logits.
    """

    def __init__(self, config: SamplingConfig, vocab_size: int, device: torch.device) -> None:
        self.config = config
        self.kind = SamplingKind.of(config)
        self.generator = torch.Generator(device)
        if config.seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(config.seed)
        self._tensors = SamplingTensors(vocab_size, device)
        self._tensors.set(config, [])
        self._previous: torch.Tensor | None = None

    def fork(self) -> Sampler:
        """One that draws, from the same logits, what this one will draw next."""
        other = copy.copy(self)
        other.generator = torch.Generator(self.generator.device)
        other.generator.set_state(self.generator.get_state())
        other._tensors = self._tensors.fork()
        return other

    def draw(self, logits: torch.Tensor) -> torch.Tensor:
        """Draw one token.

        Args:
            logits: float32 [vocab_size]; not changed.

        Returns:
            int64 [1] on the device.
        """
        self._tensors.draw_noise(self.kind, self.generator)
        self._previous = draw_token(logits, self._previous, self.kind, self._tensors)
        return self._previous

    def read(self, token_id: torch.Tensor) -> int:
        """The token that was drawn last, as a number; see `read_token`."""
        return read_token(token_id, self._tensors.highest)
