"""What a race has shown, in a sentence that is right however it ended.

Speed is told as a winner's only where chance could not have done it; see `app.race.race`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle, islice

from app.race.race import RaceFinished, Side
from quest_core.decode.draft_length import STEPS_BETWEEN_TRIALS, TRIAL_DRAFTS


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
    """The verdict on a race; `token_budget` is Quest's, or that of the drafts."""
    names: dict[Side, str] = {"dense": "Dense attention", "quest": _second(finished)}
    how, words = _how(finished), _words(finished)
    if finished.stopped:
        return _stopped(finished, words)
    if finished.fits_budget:
        return Verdict("Same work", f"No race: {_fitting(finished, token_budget)}; {words}.")
    shorter = min(finished.dense.steps, finished.quest.steps)
    if shorter <= 1:
        return Verdict(
            "Too short",
            f"Too short to compare: the first token comes from the reading that both share; {words}.",
        )
    if finished.is_same_work:
        return Verdict("Same work", f"No race: Exact drafted nothing here, so both did the same work; {words}.")
    alone = how[:1].upper() + how[1:]
    if finished.speed_ratio is None or finished.noise is None:
        return Verdict(
            "Too short", f"Too short to compare the speed: the shorter answer has {_tokens(shorter)}. {alone}{words}."
        )
    if finished.faster is None:
        return Verdict("No clear winner", f"No clear winner: {_lead(finished)}, which chance could do. {alone}{words}.")
    winner = finished.faster
    lead_s = finished.lead_s if winner == "quest" else -finished.lead_s
    if lead_s <= 0:
        # The steps that do not count were slow enough to turn it round.
        factor = finished.speed_ratio if winner == "quest" else 1 / finished.speed_ratio
        headline = f"{names[winner]} was {factor:.2f} times as fast for each token"
    elif finished.dense.steps == finished.quest.steps:
        headline = f"{names[winner]} finished {seconds(lead_s)} earlier"
    else:
        headline = f"{names[winner]} was {seconds(lead_s)} ahead when the shorter answer ended, at token {shorter:,}"
    if winner == "dense" and how:
        joined = ": " if _was_only_tried(finished) else ", although "
        return Verdict(headline, f"{headline}{joined}{how}{words}.", winner)
    share = how.removeprefix("Quest ")
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
        "Stopped",
        f"Stopped: by then {_second(finished)} had written {_tokens(quest)} and dense attention {_tokens(dense)}; "
        f"{words}.",
    )


def _lead(finished: RaceFinished) -> str:
    leader = _second(finished) if (finished.lead_s or 0.0) >= 0 else "dense attention"
    where = "at the end" if finished.dense.steps == finished.quest.steps else "when the shorter answer ended"
    return f"{where} {leader} was {seconds(abs(finished.lead_s or 0.0))} ahead"


def _second(finished: RaceFinished) -> str:
    return "Exact" if finished.attention == "exact" else "Quest"


def _fitting(finished: RaceFinished, token_budget: int) -> str:
    if finished.attention == "exact":
        return (
            f"Exact drafted nothing, as the text fits the {token_budget:,} tokens that a draft may look at, so both "
            "did the same work"
        )
    return f"the text fits the {token_budget:,} tokens that Quest may look at, so both looked at all of it"


def _how(finished: RaceFinished) -> str:
    """What the second side did, with a comma at its end; "" where that is not known."""
    quest = finished.quest
    if finished.attention == "exact":
        accepted = f"{quest.accepted_tokens:,} of {quest.drafted_tokens:,} drafts"
        if _was_only_tried(finished):
            return f"drafting did not pay and was only tried ({accepted} accepted), "
        were = "were " if finished.faster == "dense" else ""
        return f"{accepted} {were}accepted, "
    if quest.looked_share is None:
        return ""
    return f"Quest looked at {percent(quest.looked_share)} of the text for each word, "


def _was_only_tried(finished: RaceFinished) -> bool:
    """Whether all drafts were of trials, which are made now and then to see whether drafting pays."""
    trials = len(TRIAL_DRAFTS) + finished.quest.steps // STEPS_BETWEEN_TRIALS
    most_drafts = sum(islice(cycle(TRIAL_DRAFTS), trials))
    return finished.attention == "exact" and finished.quest.drafted_tokens <= most_drafts


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
