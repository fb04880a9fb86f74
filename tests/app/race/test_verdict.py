"""The sentence about a race is right however the race ended."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.race.race import RaceFinished, RaceSide
from app.race.verdict import percent, seconds, verdict

DENSE = RaceSide("High above", 24, 4.0, 250.0, 3e6, "stop", 25, 12.0, 1.0)
QUEST = RaceSide("High over", 24, 8.0, 125.0, 1e6, "stop", 25, 6.0, 0.153)
FASTER = RaceFinished(DENSE, QUEST, 2.0, 2, 24, 5, 1.2, lead_s=6.0)


LOOKED = "ooked at 15 % of the text for each word"
SAME = "the same words for 24 tokens"
NOTHING = RaceSide("", 0, None, None, None, "cancelled")
FEWER = {"steps": 12, "decode_tokens": 12}


@pytest.mark.parametrize(
    ("changes", "sentence", "winner"),
    [
        ({}, f"Quest finished 6.0 s earlier, l{LOOKED}, {SAME}.", "quest"),
        ({"first_difference": None}, f"Quest finished 6.0 s earlier, l{LOOKED}, the same words throughout.", "quest"),
        (
            {"first_difference": 0},
            f"Quest finished 6.0 s earlier, l{LOOKED}, different words from the first one on.",
            "quest",
        ),
        (
            {"quest": replace(QUEST, **FEWER)},
            f"Quest was 6.0 s ahead when the shorter answer ended, at token 12, l{LOOKED}, {SAME}.",
            "quest",
        ),
        (
            {"speed_ratio": 0.5, "lead_s": -0.4},
            f"Dense attention finished 0.4 s earlier, although Quest l{LOOKED}, {SAME}.",
            "dense",
        ),
        ({"lead_s": -0.4}, f"Quest was 2.00 times as fast for each token, l{LOOKED}, {SAME}.", "quest"),
        (
            {"speed_ratio": 1.1, "lead_s": 0.05},
            f"No clear winner: at the end Quest was 50 ms ahead, which chance could do. Quest l{LOOKED}, {SAME}.",
            "",
        ),
        (
            {"noise": None},
            f"Too short to compare the speed: the shorter answer has 25 tokens. Quest l{LOOKED}, {SAME}.",
            "",
        ),
        (
            {"fits_budget": True},
            f"No race: the text fits the 1,024 tokens that Quest may look at, so both looked at all of it; {SAME}.",
            "",
        ),
        (
            {"quest": replace(QUEST, steps=1, decode_tokens=1), "first_difference": 1},
            "Too short to compare: the first token comes from the reading that both share; the same first token, "
            "then different ones.",
            "",
        ),
        (
            {"dense": replace(DENSE, decode_tokens=1, finish_reason="cancelled"), "first_difference": 1},
            "Stopped: by then Quest had written 24 tokens and dense attention 1 token; the same words so far.",
            "",
        ),
        ({"dense": NOTHING, "quest": NOTHING}, "Stopped before the first word.", ""),
    ],
)
def test_the_sentence(changes, sentence, winner):
    told = verdict(replace(FASTER, **changes), 1024)
    assert (told.sentence, told.winner) == (sentence, winner)
    assert told.headline and len(told.headline) <= len(sentence)


EXACT = replace(QUEST, drafted_tokens=212, accepted_tokens=208, looked_share=1.0)
EXACT_FASTER = replace(FASTER, quest=EXACT, first_difference=None, first_difference_char=None, attention="exact")
ONLY_TRIED = {"quest": replace(EXACT, drafted_tokens=3, accepted_tokens=2)}
# The two trials of a short answer draft four.
MORE_THAN_TRIED = {"quest": replace(EXACT, drafted_tokens=5, accepted_tokens=4)}
NO_DRAFTS = {"quest": replace(EXACT, drafted_tokens=0, accepted_tokens=0)}
SAME_WORDS = "the same words throughout"


@pytest.mark.parametrize(
    ("changes", "sentence", "winner"),
    [
        ({}, f"Exact finished 6.0 s earlier, 208 of 212 drafts accepted, {SAME_WORDS}.", "quest"),
        ({"first_difference": 24}, f"Exact finished 6.0 s earlier, 208 of 212 drafts accepted, {SAME}.", "quest"),
        (
            {"speed_ratio": 0.5, "lead_s": -0.4},
            f"Dense attention finished 0.4 s earlier, although 208 of 212 drafts were accepted, {SAME_WORDS}.",
            "dense",
        ),
        (
            ONLY_TRIED | {"speed_ratio": 0.5, "lead_s": -0.4},
            "Dense attention finished 0.4 s earlier: drafting did not pay and was only tried (2 of 3 drafts accepted), "
            f"{SAME_WORDS}.",
            "dense",
        ),
        (
            MORE_THAN_TRIED | {"speed_ratio": 0.5, "lead_s": -0.4},
            f"Dense attention finished 0.4 s earlier, although 4 of 5 drafts were accepted, {SAME_WORDS}.",
            "dense",
        ),
        (
            ONLY_TRIED | {"speed_ratio": 1.1, "lead_s": 0.05},
            "No clear winner: at the end Exact was 50 ms ahead, which chance could do. Drafting did not pay and was "
            f"only tried (2 of 3 drafts accepted), {SAME_WORDS}.",
            "",
        ),
        (
            {"noise": None},
            "Too short to compare the speed: the shorter answer has 25 tokens. 208 of 212 drafts accepted, "
            f"{SAME_WORDS}.",
            "",
        ),
        (NO_DRAFTS, f"No race: Exact drafted nothing here, so both did the same work; {SAME_WORDS}.", ""),
        (
            NO_DRAFTS | {"fits_budget": True},
            "No race: Exact drafted nothing, as the text fits the 1,024 tokens that a draft may look at, so both did "
            f"the same work; {SAME_WORDS}.",
            "",
        ),
        (
            {"dense": replace(DENSE, decode_tokens=1, finish_reason="cancelled")},
            f"Stopped: by then Exact had written 24 tokens and dense attention 1 token; {SAME_WORDS}.",
            "",
        ),
    ],
)
def test_the_sentence_about_exact(changes, sentence, winner):
    told = verdict(replace(EXACT_FASTER, **changes), 1024)
    assert (told.sentence, told.winner) == (sentence, winner)


def test_spans_and_shares_as_people_say_them():
    spans = {0.04: "40 ms", 0.0996: "0.1 s", 9.94: "9.9 s", 9.96: "10 s", 125: "2 min 5 s"}
    assert {span: seconds(span) for span in spans} == spans
    assert [percent(share) for share in (0, 0.004, 0.15, 1)] == ["0 %", "0.4 %", "15 %", "100 %"]
