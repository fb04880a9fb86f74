"""What the user is told about a window that is longer than the one the model was trained for.

Sentences only; which sequence is stretched by how much belongs to `quest_core`.
"""

from __future__ import annotations

# Measured on the embedded model, passkeys found at 7,500 tokens in filler: 4 of 6 as trained, 4 of 4 stretched twofold,
# none of 4 stretched fourfold; the perplexity of a novel's last 2,048 tokens stays the same.
SAFE_STRETCH_FACTOR = 2.0


def window_note(trained_tokens: int, context_tokens: int, stretch_factor: float) -> str:
    """How a conversation is read that outgrows what the model was trained for; "" if the window is not longer.

    Args:
        trained_tokens: the longest sequence that is read as the model was made.
        context_tokens: the window.
        stretch_factor: of positions in sequences as long as the window.
    """
    if context_tokens <= trained_tokens:
        return ""
    note = (
        f"The model was trained on {trained_tokens:,} tokens, and reads a conversation up to there as it was trained. "
        "One that outgrows them is read again from its beginning, with positions stretched (YaRN) no further than "
        f"needed: {stretch_factor:.3g} times for the whole window of {context_tokens:,} tokens."
    )
    return f"{note} {stretch_warning(stretch_factor)}".strip()


def stretch_warning(stretch_factor: float) -> str:
    """What a long stretch costs; "" for one that was found harmless."""
    if stretch_factor <= SAFE_STRETCH_FACTOR:
        return ""
    return (
        f"Beyond {SAFE_STRETCH_FACTOR:g} times expect fluent text but few facts: so stretched, the embedded model "
        "writes as well as before and no longer finds what stands far back."
    )


def reread_note(stretch_factor: float) -> str:
    """Why a conversation that was read before is read again."""
    if stretch_factor == 1.0:
        return "the conversation fits the model's own window again and is read anew, unstretched"
    return (
        "the conversation has outgrown its window and is read again, with positions stretched "
        f"{stretch_factor:.3g} times"
    )
