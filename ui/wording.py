"""Numbers as sentences: how the page tells of progress, speed and sizes.

Text only, without markup; the panels decide where it stands.
"""

from collections.abc import Sequence

from app.chat.answers.answer import PrefillEvent
from app.chat.reading.stretch_notes import reread_note

# A question and what stands around it.
_QUESTION_TOKENS = 192


def prefill_line(
    done_tokens: int,
    total_tokens: int,
    remaining_s: float | None,
    reading: str = "the document",
    reused_tokens: int = 0,
) -> str:
    """How far the prompt has been read, e.g. "Reading the document: 65 %, 3 s left"; "Already read. Answering" where
    nothing but the question is new."""
    if done_tokens >= total_tokens or total_tokens - reused_tokens <= _QUESTION_TOKENS < reused_tokens:
        return "Already read. Answering" if reused_tokens > _QUESTION_TOKENS else "Answering"
    left = "" if remaining_s is None else f", {duration(remaining_s)} left"
    return f"Reading {reading}: {percentage(done_tokens / total_tokens)}{left}"


def stretch_suffix(event: PrefillEvent) -> str:
    """What follows the line of a prefill that reads anew what was read before; "" for others."""
    read = event.progress
    return f" ({reread_note(read.stretch_factor)})" if read.stretch_changed else ""


def reading_line(name: str, share: float | None) -> str:
    """What a question waits for while a document's text is read: "Reading The Happy Prince: 40 %"."""
    return f"Reading {name}" if share is None else f"Reading {name}: {percentage(share)}"


def loading_line(message: str) -> str:
    """What a question waits for that was asked before the model was there."""
    return f"Waiting for the model: {message}"


def queue_line(jobs_ahead: int) -> str:
    """How many questions of other tabs are answered first."""
    if jobs_ahead <= 0:
        return "Starting"
    questions = "one question" if jobs_ahead == 1 else f"{jobs_ahead} questions"
    return f"Waiting: {questions} from another tab first"


def duration(seconds: float) -> str:
    """A rough time span: "3 s", "2 min 5 s"."""
    whole = max(1, round(seconds))
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


def seconds(value: float) -> str:
    """A measured time: "0.31 s", "12.4 s"."""
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"


def rate(tokens_per_s: float) -> str:
    """A speed: "18.6 tokens/s", "142 tokens/s"."""
    return f"{tokens_per_s:.0f} tokens/s" if tokens_per_s >= 100 else f"{tokens_per_s:.1f} tokens/s"


def percentage(share: float) -> str:
    """A share of 1 in per cent: "31 %"."""
    return f"{100 * share:.0f} %"


def counted(count: int, singular: str, plural: str | None = None) -> str:
    """A number with its noun: "1 page", "1,204 pages"."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: "a.pdf", "a.pdf and b.pdf", "a.pdf, b.pdf and c.pdf"."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
