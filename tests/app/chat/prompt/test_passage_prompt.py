"""Prompts of documents longer than the window: each continues the last, nothing stands twice, and all can be remade."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import pytest

from app.chat.prompt.plan import PromptPlanner
from app.chat.prompt.turn_passages import TurnPassages

pytest.importorskip("llama_index.retrievers.bm25")

SYSTEM = "Answer from the text."
WINDOW_TOKENS = 4000
ROOM_TOKENS = 50
ANSWER = (5, 6, 7)


@dataclass(frozen=True)
class PastTurn:
    question: str
    answer_token_ids: tuple[int, ...]
    prompt_passages: TurnPassages | None = None


@pytest.fixture
def planner(chat_tokenizer) -> PromptPlanner:
    return PromptPlanner(chat_tokenizer, WINDOW_TOKENS)


@pytest.fixture
def document(text_document):
    pages = [f"On day {day} the boats of harbour number {day} came home, and the bell rang. " * 8 for day in range(60)]
    pages[40] = "The lighthouse keeper had left the village in winter. " * 6
    pages[7] = "Somebody saw a parrot on the mast of the ferry. " * 6
    pages[21] = "The grandmother baked bread with rosemary. " * 6
    return text_document(*pages)


def ask(planner, documents, turns, question):
    """The plan for a question, and the turns after its answer."""
    plan = planner.plan(documents, turns, question, SYSTEM, ROOM_TOKENS)
    return plan, [*turns, PastTurn(question, ANSWER, plan.passages_added)]


def places(plan):
    return [
        (span.document.document_id, span.page_index, int(span.characters[0, 0]), int(span.characters[-1, 1]))
        for span in plan.spans
        if span.document is not None
    ]


def test_every_prompt_continues_the_one_before_it_and_nothing_stands_twice(planner, document):
    turns, last = [], None
    for question in ("Where did the lighthouse keeper go?", "Who saw the parrot?", "Who baked bread with rosemary?"):
        plan, turns = ask(planner, [document], turns, question)
        if last is not None:
            assert plan.token_ids[: len(last.token_ids) + len(ANSWER)] == [*last.token_ids, *ANSWER]
            assert not plan.passages_added.begins_anew
            assert len(plan.token_ids) - len(last.token_ids) < 0.3 * len(last.token_ids)
            assert plan.kept_ends == last.kept_ends
        last = plan
    found = places(last)
    assert {40, 7, 21} <= {page for _, page, _, _ in found} and len(found) == len(set(found))
    for place in found:
        overlapping = [one for one in found if one[1] == place[1] and one[2] < place[3] and place[2] < one[3]]
        assert overlapping == [place]


def test_a_question_whose_passages_stand_already_brings_none(planner, document):
    plan, turns = ask(planner, [document], [], "Where did the lighthouse keeper go?")
    again, _ = ask(planner, [document], turns, "When did the lighthouse keeper leave?")
    assert again.passages_added == TurnPassages((), False)
    assert places(again) == places(plan)
    follow_up, _ = ask(planner, [document], turns, "And why?")
    assert follow_up.passages_added.places == () and follow_up.tokens_in_context == plan.tokens_in_context


def test_a_full_window_begins_anew_with_the_passages_of_the_present_question(chat_tokenizer, document):
    planner = PromptPlanner(chat_tokenizer, 1800)
    turns, anew = [], []
    for number in range(12):
        plan, turns = ask(planner, [document], turns, f"What of harbour number {number} and day {number}?")
        assert len(plan.token_ids) + ROOM_TOKENS <= 1800
        anew.append(plan.passages_added.begins_anew)
    assert anew[0] and not anew[1] and 1 < sum(anew) < 8
    # The prompt after that one goes on from there.
    usage = planner.usage([document], turns, SYSTEM, ROOM_TOKENS)
    assert usage.passages_are_read and usage.passage_tokens == plan.tokens_in_context
    taken = usage.passage_tokens + usage.heading_tokens + usage.conversation_tokens
    after = planner.plan([document], turns, "", SYSTEM, ROOM_TOKENS)
    assert after.passages_added.begins_anew or taken == len(after.token_ids)


def test_what_a_turn_has_brought_is_remade_from_what_is_stored(planner, document):
    plan, turns = ask(planner, [document], [], "Where did the lighthouse keeper go?")
    plan, turns = ask(planner, [document], turns, "Who saw the parrot?")
    stored = [replace(turn, prompt_passages=TurnPassages.from_stored(asdict(turn.prompt_passages))) for turn in turns]
    following = planner.plan([document], turns, "Why?", SYSTEM, ROOM_TOKENS)
    assert planner.plan([document], stored, "Why?", SYSTEM, ROOM_TOKENS).token_ids == following.token_ids
    # Another branch has the passages of its own past.
    branch = planner.plan([document], turns[:1], "Why?", SYSTEM, ROOM_TOKENS)
    assert 7 not in {page for _, page, _, _ in places(branch)}


def test_without_what_stood_there_the_next_question_begins_anew(planner, document, text_document):
    _, turns = ask(planner, [document], [], "Where did the lighthouse keeper go?")
    other = text_document(*["Quite another text of quite other things. " * 20] * 40, name="other.txt")
    forgotten = [replace(turn, prompt_passages=None) for turn in turns]
    shorter = replace(document, document_pages=document.document_pages[:5] + other.document_pages[5:])
    cases = [([other], turns), ([document], forgotten), ([shorter], turns)]
    for documents, past in cases:
        assert planner.plan(documents, past, "Who?", SYSTEM, ROOM_TOKENS).passages_added.begins_anew
    # One more document leaves what stands where it is.
    assert not planner.plan([document, other], turns, "Who?", SYSTEM, ROOM_TOKENS).passages_added.begins_anew


def test_passages_stay_within_the_positions_that_the_model_was_trained_for(chat_tokenizer, document):
    planner = PromptPlanner(chat_tokenizer, WINDOW_TOKENS, trained_tokens=1500)
    turns = []
    for number in range(8):
        plan, turns = ask(planner, [document], turns, f"What of harbour number {number} and day {number}?")
        assert len(plan.token_ids) + ROOM_TOKENS <= 1500
    # A conversation that is longer by itself has the rest of the window.
    turns = [PastTurn("Who?", ANSWER * 100) for _ in range(4)]
    plan = planner.plan([document], turns, "What of day 3?", SYSTEM, ROOM_TOKENS)
    assert 1500 < len(plan.token_ids) + ROOM_TOKENS <= WINDOW_TOKENS


def test_a_question_about_the_whole_gets_an_overview_once(planner, document, chat_tokenizer):
    plan, turns = ask(planner, [document], [], "Summarise the document.")
    assert plan.passages_added.kind == "overview"
    pages = [page for _, page, _, _ in places(plan)]
    assert pages[0] == 0 and pages[-1] == 59 and max(b - a for a, b in zip(pages, pages[1:], strict=False)) < 35
    again, _ = ask(planner, [document], turns, "What is this about?")
    assert again.passages_added.places == () and again.token_ids[: len(plan.token_ids)] == plan.token_ids
    # The first search beside an overview gets more than later ones.
    first, turns = ask(planner, [document], turns, "Which boats came home?")
    later, _ = ask(planner, [document], turns, "When rang the bell of the harbour?")
    assert later.tokens_in_context - first.tokens_in_context < first.tokens_in_context - plan.tokens_in_context
    named = replace(
        document,
        document_pages=tuple(
            replace(page, page_label=f"Chapter of day {page.index}") for page in document.document_pages
        ),
    )
    plan, turns = ask(planner, [named], [], "Summarise the document.")
    outline = "[harbour.txt, contents]\nChapter of day 0\nChapter of day 1\n"
    assert outline in chat_tokenizer.decode(plan.token_ids)
    following = planner.plan([named], turns, "Who?", SYSTEM, ROOM_TOKENS)
    assert following.token_ids[: len(plan.token_ids)] == plan.token_ids


def test_the_translation_is_searched_for_beside_the_question(planner, document):
    question = "Wo ist der Leuchtturm?"
    plan = planner.plan([document], [], question, SYSTEM, ROOM_TOKENS, "Where is the lighthouse?")
    assert plan.searched_text and plan.question_words.found == ("lighthouse",)
    assert 40 in {page for _, page, _, _ in places(plan)}
