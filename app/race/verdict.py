"""What a race has shown, in a sentence that is right however it ended.

Speed is told as a winner's only where chance could not have done it; see `app.race.race`.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.race.race import RaceFinished, Side

_NAMES: dict[Side, str] = {"dense": "Dense attention", "quest": "Quest"}


@dataclass(frozen=True)
class Verdict:
    """How a race ended.

    Args:
        headline: a few words for the finish line.
        sentence: all of it.
        winner: the side that was faster; "" where none was, or nobody can tell.
    """

    headline: str
    sentence: str
    winner: Side | str = ""


def verdict(finished: RaceFinished, token_budget: int) -> Verdict:
    """The verdict on a race; `token_budget` is Quest's."""
    looked, words = _looked(finished), _words(finished)
    if finished.stopped:
        return _stopped(finished, words)
    if finished.fits_budget:
        return Verdict(
            "Same work",
            f"No race: the text fits the {token_budget:,} tokens that Quest may look at, so both looked at all of it; "
            f"{words}.",
        )
    shorter = min(finished.dense.steps, finished.quest.steps)
    if shorter <= 1:
        return Verdict(
            "Too short",
            f"Too short to compare: the first token comes from the reading that both share; {words}.",
        )
    if finished.speed_ratio is None or finished.noise is None:
        return Verdict(
            "Too short", f"Too short to compare the speed: the shorter answer has {_tokens(shorter)}. {looked}{words}."
        )
    if finished.faster is None:
        return Verdict(
            "No clear winner", f"No clear winner: {_lead(finished)}, which chance could do. {looked}{words}."
        )
    winner = finished.faster
    lead_s = finished.lead_s if winner == "quest" else -finished.lead_s
    if lead_s <= 0:
        # The steps that do not count were slow enough to turn it round.
        factor = finished.speed_ratio if winner == "quest" else 1 / finished.speed_ratio
        headline = f"{_NAMES[winner]} was {factor:.2f} times as fast for each token"
    elif finished.dense.steps == finished.quest.steps:
        headline = f"{_NAMES[winner]} finished {seconds(lead_s)} earlier"
    else:
        headline = f"{_NAMES[winner]} was {seconds(lead_s)} ahead when the shorter answer ended, at token {shorter:,}"
    if winner == "dense" and looked:
        return Verdict(headline, f"{headline}, although {looked}{words}.", winner)
    share = looked.removeprefix("Quest ")
    return Verdict(headline, f"{headline}, {share}{words}.", winner)


def seconds(span_s: float) -> str:
    """A span of time as people say it: "40 ms", "0.6 s", "12 s", "2 min 5 s"."""
    if span_s < 0.0995:
        return f"{1000 * span_s:.0f} ms"
    if span_s < 9.95:
        return f"{span_s:.1f} s"
    whole = round(span_s)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


def percent(share: float) -> str:
    """A share as people say it: "15 %", "0.4 %"."""
    return f"{100 * share:.1f} %" if 0 < share < 0.0095 else f"{100 * share:.0f} %"


def _stopped(finished: RaceFinished, words: str) -> Verdict:
    dense, quest = finished.dense.decode_tokens, finished.quest.decode_tokens
    if not dense and not quest:
        return Verdict("Stopped", "Stopped before the first word.")
    return Verdict(
        "Stopped", f"Stopped: by then Quest had written {_tokens(quest)} and dense attention {_tokens(dense)}; {words}."
    )


def _lead(finished: RaceFinished) -> str:
    leader = "Quest" if (finished.lead_s or 0.0) >= 0 else "dense attention"
    where = "at the end" if finished.dense.steps == finished.quest.steps else "when the shorter answer ended"
    return f"{where} {leader} was {seconds(abs(finished.lead_s or 0.0))} ahead"


def _looked(finished: RaceFinished) -> str:
    share = finished.quest.looked_share
    return "" if share is None else f"Quest looked at {percent(share)} of the text for each word, "


def _words(finished: RaceFinished) -> str:
    parted = finished.first_difference
    if parted is None:
        return "the same words throughout"
    if finished.stopped and parted >= min(finished.dense.decode_tokens, finished.quest.decode_tokens):
        return "the same words so far"
    if parted == 0:
        return "different words from the first one on"
    return f"the same words for {parted:,} tokens" if parted > 1 else "the same first token, then different ones"


def _tokens(count: int) -> str:
    return "1 token" if count == 1 else f"{count:,} tokens"
