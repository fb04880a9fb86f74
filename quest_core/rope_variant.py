"""A model as sequences of one length see it: its decoder under the RoPE that they need, and the steps over it.

A window longer than the model was trained for is not stretched for everybody: a sequence takes the shortest variant
that holds it. Keys are cached rotated, so a sequence that outgrows its variant is read again under the next one.
`ModelConfig.ropes` says which variants there are, and a session which one a sequence takes.
"""

from __future__ import annotations

from dataclasses import dataclass

from quest_core.decode.decode_graph import StepGraphs
from quest_core.decode.round_graphs import RoundGraphs
from quest_core.decoder import Decoder


@dataclass(frozen=True)
class RopeVariant:
    """For sequences of up to `max_tokens`.

    Args:
        max_tokens: longest sequence.
        decoder: the model; the variants share its weights.
        graphs: run the decode steps, where they can; None runs them eagerly.
        rounds: run rounds of speculative decoding where there are `graphs`; None decodes densely in their place.
    """

    max_tokens: int
    decoder: Decoder
    graphs: StepGraphs | None
    rounds: RoundGraphs | None = None

    @property
    def factor(self) -> float:
        """By how much positions are stretched here, 1 as the model was made (which may stretch them by itself)."""
        return self.decoder.config.rope_factor
