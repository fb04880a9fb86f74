"""What the page tells of measurements: named choices of how much an answer reads, each with its loss, and how far
the live estimate of missed attention may be off."""

from __future__ import annotations

from dataclasses import dataclass

from quest_core.config import QuestConfig


@dataclass(frozen=True)
class Preset:
    """Attention and budget under one name.

    `measured_loss` is perplexity over that of dense attention, with the default selection; docs/evaluation.md has it
    under "Result". `promise` says the same to somebody who reads a book.
    """

    name: str
    attention: str
    token_budget: int
    measured_loss: float
    promise: str

    @property
    def title(self) -> str:
        """One word, for where three of them stand side by side."""
        return self.name.capitalize()

    @property
    def label(self) -> str:
        """The name and what a reader may expect of it."""
        return f"{self.title}: {self.promise}"

    @property
    def small_print(self) -> str:
        """What stands behind the promise."""
        if self.attention == "exact":
            return f"{self.title}: every word of the text, for each word of the answer."
        loss_percent = 100 * (self.measured_loss - 1)
        return (
            f"{self.title}: every word as long as that is not slower, then {self.token_budget:,} tokens for each word; "
            f"perplexity +{loss_percent:.1f} %, measured."
        )


# Least and greatest ratio of the true missed share of attention to the live panel's estimate, with the default
# selection: `app.measure.evaluation.missed_share` over assets/evaluation/recall-6k.json.
MISSED_OVER_ESTIMATE = (1.19, 1.51)

PRESETS = (
    Preset("exact", "exact", QuestConfig.token_budget, 1.0, "reads everything"),
    Preset("balanced", "auto", QuestConfig.token_budget, 1.006, "nearly exact"),
    Preset("fast", "auto", 256, 1.041, "may miss details"),
)


def find_preset(attention: str, token_budget: int) -> Preset | None:
    """The preset that these settings are, None if they are none's; an exact answer is the same with any budget."""
    for preset in PRESETS:
        if preset.attention == "exact" and attention in ("exact", "dense"):
            return preset
        if preset.attention == attention and preset.token_budget == token_budget:
            return preset
    return None
