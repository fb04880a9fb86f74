"""How much of its context an answer was made with, and why, in words for somebody who reads a book."""

from __future__ import annotations

from app.chat.answers.answer import AnswerReport

_WHY_ALL = {"auto": ": at this length that is not slower", "quest": ": they fit the budget"}
_WHY_PART = {"auto": ", because all would be slower"}


def reading_words(report: AnswerReport) -> str:
    """What the answer's steps read: "all 812 tokens read: at this length that is not slower".

    Where no step is known to have read anything, only which attention was asked for.
    """
    if report.attended_tokens is None:
        return f"{report.attention} attention"
    if report.read_all:
        return f"all {report.attended_tokens:,.0f} tokens read" + _WHY_ALL.get(report.attention, "")
    context_tokens = report.prompt_tokens + report.thinking_tokens + report.decode_tokens
    read = f"{report.attended_tokens:,.0f} of {context_tokens:,} tokens read for each"
    return read + _WHY_PART.get(report.attention, "")
