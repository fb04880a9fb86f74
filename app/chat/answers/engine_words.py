"""What another engine tells of an answer, in words for its reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.chat.answers.answer import AnswerReport

# Of the reasons that an engine may give, those that people need not look up.
_REASONS = {
    "content_filter": "its content filter lets no more through",
    "tool_calls": "the model wants to call a tool, and there is none",
    "function_call": "the model wants to call a tool, and there is none",
    "insufficient_system_resource": "it has too little memory or too much to do",
    "abort": "it was told to stop there",
    "error": "it has failed",
}


def engine_cut_words(report: AnswerReport) -> str:
    """Why another engine has cut an answer: "Cut by http://127.0.0.1:8000: its content filter lets no more through"."""
    return cut_words(report.device, report.engine_reason)


def cut_words(engine: str, reason: str) -> str:
    """The same of an engine's name and the reason that it has given."""
    words = _REASONS.get(reason, f'the reason that it gives is "{reason}"')
    return f"Cut by {engine}: {words}."


def estimate_words(report: AnswerReport) -> str:
    """That a prompt was counted here, of an answer whose tokens the other engine did not tell."""
    return f"about {report.prompt_tokens:,} tokens of prompt, counted here: {report.device} has told no count"
