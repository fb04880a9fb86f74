"""Races that belong to the server: kept with all their events, stopped, refused, bounded; and sweeps over budgets."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.chat.answers.answer import AnswerOptions
from app.errors import UserFacingError
from app.race.kept_record import RaceRequest
from app.race.races import KEPT_OF_A_CONVERSATION, Races
from app.web.race_routes import add_race_routes, race_request

OPTIONS = AnswerOptions(token_budget=64, max_new_tokens=24)
REQUEST = RaceRequest("Who kept the light?", OPTIONS)


@pytest.fixture
def reading(assistant, book_path):
    """A conversation with a document and two answers."""
    conversation = assistant.new_conversation()
    entry = assistant.add_document(conversation, book_path)
    assistant.library.wait(entry.document_id)
    for question in ("Who came home?", "And why?"):
        list(assistant.answer(conversation, question, replace(OPTIONS, max_new_tokens=8)))
    yield conversation
    assistant.delete_conversation(conversation.conversation_id)


def raced(assistant, conversation, request=REQUEST):
    race = assistant.start_race(conversation, request)
    race.join(60)
    return race.to_json()


def test_a_race_is_kept_with_its_film_and_changes_nothing(assistant, reading):
    turns, told = list(reading.turns), assistant.telemetry.subscribe(reading.conversation_id)
    film = raced(assistant, reading)
    assert (film["state"], film["message"]) == ("finished", "")
    tokens = film["tokens"]
    for side in ("dense", "quest"):
        assert "".join(token["text"] for token in tokens[side]) == film["result"][side]["answer"]
        times = [token["at_s"] for token in tokens[side]]
        assert times == sorted(times) and times[-1] == pytest.approx(film["result"][side]["finished_s"], abs=1e-5)
    assert all(token["looked_at"] is None for token in tokens["dense"])
    assert tokens["quest"][0]["looked_at"] is None
    assert {len(token["looked_at"]) for token in tokens["quest"][1:]} == {len(film["text"]["pages"])}
    assert sum(page["tokens"] for page in film["text"]["pages"]) == film["text"]["text_tokens"]
    events = []
    while (event := told.next(0.1)) is not None:
        events += [event] if event["type"] == "race" else []
    assert events[-1]["state"] == "finished" and events[-1]["result"] == film["result"]
    assert [one["number"] for event in events for one in event["tokens"] if one["side"] == "quest"] == list(range(24))
    assert reading.turns == turns and not reading.busy.locked()
    assert assistant.races.find(reading.conversation_id, film["race_id"]).to_json() == film
    outlook = assistant.race_outlook(reading.conversation_id)
    assert outlook["mode"] == "whole" and outlook["race_s"] > 0 and outlook["window_tokens"] is None


def test_what_the_preset_reads_is_raced(assistant, reading):
    quest = raced(assistant, reading, replace(REQUEST, options=replace(OPTIONS, attention="auto")))
    exact_options = replace(OPTIONS, attention="exact", token_budget=16, max_new_tokens=32)
    exact = raced(assistant, reading, replace(REQUEST, options=exact_options))
    assert (quest["attention"], exact["attention"], exact["state"]) == ("quest", "exact", "finished")
    assert exact["result"]["dense"]["answer"] == exact["result"]["quest"]["answer"]
    assert exact["result"]["first_difference"] is None
    tokens = exact["tokens"]["quest"]
    assert all(token["looked_at"] is None for token in tokens)
    for name in ("drafted", "accepted"):
        assert exact["result"]["quest"][f"{name}_tokens"] == sum(token[name] for token in tokens)
    assert exact["result"]["quest"]["drafted_tokens"] > 0
    assert "drafted" not in quest["tokens"]["quest"][-1]
    # A sweep is over Quest's budgets.
    assert RaceRequest("Who?", exact_options, budgets=(16,)).attention == "quest"
    outlook = assistant.race_outlook(reading.conversation_id)
    assert outlook["attention"] == "quest" and outlook["exact_race_s"] > 0


def test_a_question_is_raced_as_it_was_asked(assistant, reading):
    second = reading.turns[1]
    request = replace(REQUEST, question=second.question, turn_id=second.turn_id)
    as_asked, anew = raced(assistant, reading, request), raced(assistant, reading, replace(request, turn_id=""))
    assert as_asked["text"]["prompt_tokens"] == second.report.prompt_tokens < anew["text"]["prompt_tokens"]
    # Of another branch, too.
    list(assistant.ask(reading, "Anew?", replace(OPTIONS, max_new_tokens=4), after_turn=0).follow())
    assert raced(assistant, reading, request)["text"]["prompt_tokens"] == second.report.prompt_tokens
    gone = raced(assistant, reading, replace(request, turn_id="99999"))
    assert (gone["state"], gone["message"][:44]) == ("failed", "This answer is not in the conversation any m")


def test_a_race_is_stopped_and_meanwhile_others_are_refused(assistant, reading):
    race = assistant.start_race(reading, replace(REQUEST, options=replace(OPTIONS, max_new_tokens=700)))
    with pytest.raises(UserFacingError, match="still racing"):
        assistant.ask(reading, "Who?", OPTIONS)
    with pytest.raises(UserFacingError, match="still racing"):
        assistant.start_race(reading, REQUEST)
    assistant.races.stop(reading, race.record.race_id)
    race.join(60)
    assert race.record.state == "stopped" and race.to_json()["result"]["sentence"].startswith("Stopped")
    assert raced(assistant, reading)["state"] == "finished"


def test_a_long_text_is_raced_as_far_as_the_window_holds_it(assistant, tmp_path):
    path = tmp_path / "long.txt"
    path.write_text("\n\n".join(f"{number}. The boats came home one after the other." for number in range(400)))
    conversation = assistant.new_conversation()
    assistant.library.wait(assistant.add_document(conversation, path).document_id)
    outlook = assistant.race_outlook(conversation.conversation_id)
    assert outlook["mode"] == "passages" and outlook["window_tokens"] > outlook["text_tokens"]
    film = raced(assistant, conversation, replace(REQUEST, whole_window=True))
    held = film["text"]
    assert film["state"] == "finished" and held["mode"] == "whole"
    assert outlook["text_tokens"] < held["text_tokens"] < held["document_tokens"]
    assert 0.9 * 1024 < held["prompt_tokens"] + OPTIONS.max_new_tokens <= 1024
    assert conversation.session is None
    assistant.delete_conversation(conversation.conversation_id)


def test_a_sweep_measures_each_budget_along_one_answer(assistant, reading):
    swept = raced(assistant, reading, replace(REQUEST, budgets=(16, 64, 1024)))
    assert swept["state"] == "finished" and "tokens" in swept["message"]
    assert [point["token_budget"] for point in swept["points"]] == [16, 64, 1024]
    least, _, whole = swept["points"]
    assert least["looked_share"] < whole["looked_share"] == 1.0
    assert whole["agreed"] == whole["steps"] > 16 and whole["fits_budget"]
    assert least["speed_ratio"] > 0 and least["noise"] > 1 and not least["fits_budget"]
    assert swept["answer"] and not reading.busy.locked()


def test_the_last_few_races_are_kept(assistant):
    conversation = assistant.new_conversation()
    free = threading.Semaphore(1)

    def occupy(conversation):
        free.acquire(timeout=10)
        return conversation

    def make(conversation, request):
        raise UserFacingError("Nothing to race.")
        yield

    races = Races(make, occupy, lambda conversation: free.release(), assistant.cancel, lambda *told: None)
    begun = [races.start(conversation, REQUEST).record.race_id for _ in range(KEPT_OF_A_CONVERSATION + 2)]
    assert [race.record.race_id for race in races.of(conversation.conversation_id)] == begun[:1:-1]
    with pytest.raises(UserFacingError, match="not kept any more"):
        races.find(conversation.conversation_id, begun[0])
    with pytest.raises(UserFacingError, match="not kept any more"):
        races.find("another", begun[-1])


def test_the_routes(assistant, reading):
    app = FastAPI()

    @app.exception_handler(UserFacingError)
    def refuse(request, error):
        from fastapi.responses import JSONResponse

        return JSONResponse({"error": error.message}, 404)

    add_race_routes(app, assistant)
    client, base = TestClient(app), f"/conversations/{reading.conversation_id}/races"
    asked = {"question": "Who?", "options": {"token_budget": 64, "max_new_tokens": 12}}
    with reading.busy:
        assert client.post(base, json=asked).status_code == 409
    begun = client.post(base, json=asked)
    race_id = begun.json()["race_id"]
    assistant.races.find(reading.conversation_id, race_id).join(60)
    assert begun.status_code == 202
    listed = client.get(base).json()
    assert listed["races"][0]["race_id"] == listed["latest"]["race_id"] == race_id
    assert listed["latest"] == client.get(f"{base}/{race_id}").json() == client.get(f"{base}/{race_id}/file").json()
    assert client.post(f"{base}/{race_id}/stop").json() == {}
    assert client.get(f"{base}/other").status_code == 404
    assert client.post("/conversations/none/races", json=asked).status_code == 404
    assert client.post(base, json=[]).status_code == 400


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"question": " "},
        {"question": 5},
        {"question": "x" * 20_001},
        {"question": "Who?", "options": []},
        {"question": "Who?", "options": {"token_budget": "9"}},
        {"question": "Who?", "options": {"max_new_tokens": 10**9}},
        {"question": "Who?", "options": {"token_budget": True}},
        {"question": "Who?", "options": {"attention": "none"}},
        {"question": "Who?", "options": {"attention": ["exact"]}},
        {"question": "Who?", "budgets": [0]},
        {"question": "Who?", "budgets": list(range(1, 12))},
        {"question": "Who?", "turn_id": {"a": 1}},
    ],
)
def test_a_request_that_is_none_is_refused(asked):
    with pytest.raises(ValueError):
        race_request(asked, OPTIONS)
