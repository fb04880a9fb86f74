"""What the page tells of measurements: named choices of how much an answer reads, each with its loss, and how far
the live estimate of missed attention may be off."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """Attention and budget under one name.

    `measured_loss` is perplexity over that of dense attention, with the default selection: EVALUATION.md, "Result".
    """

    name: str
    attention: str
    token_budget: int
    measured_loss: float

    @property
    def label(self) -> str:
        """For people: the name and what it costs."""
        if self.attention == "dense":
            return "Exact: reads everything"
        loss_percent = 100 * (self.measured_loss - 1)
        return f"{self.name.capitalize()}: {self.token_budget:,} tokens a step, perplexity +{loss_percent:.1f} %"


# Least and greatest ratio of the true missed share of attention to the live panel's estimate, with the default
# selection: `app.measure.evaluation.missed_share` over assets/evaluation/recall-6k.json.
MISSED_OVER_ESTIMATE = (1.19, 1.51)

PRESETS = (
    Preset("exact", "dense", 1024, 1.0),
    Preset("balanced", "quest", 1024, 1.006),
    Preset("fast", "quest", 256, 1.041),
)


def find_preset(attention: str, token_budget: int) -> Preset | None:
    """The preset that these settings are, None if they are none's; a dense answer has no budget."""
    for preset in PRESETS:
        if preset.attention == attention and (attention == "dense" or preset.token_budget == token_budget):
            return preset
    return None
