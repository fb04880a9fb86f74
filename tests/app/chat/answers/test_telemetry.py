"""What watchers of a conversation get, and which steps are kept."""

from __future__ import annotations

import base64
import json
import threading

import numpy as np
import pytest

from app.chat.answers.telemetry import KEPT_STEPS, TelemetryHub


def step(number, page_reads=None):
    return {"type": "step", "step": number, "page_reads": page_reads}


@pytest.fixture
def hub():
    hub = TelemetryHub()
    for conversation_id in "ab":
        hub.open(conversation_id)
    return hub


def all_events(subscription):
    events = []
    while (event := subscription.next(0)) is not None:
        events.append(event)
    return events


def test_of_steps_the_latest_and_of_the_rest_everything(hub):
    subscription = hub.subscribe("a")
    hub.publish("a", {"type": "prefill", "done_tokens": 1})
    hub.publish("a", {"type": "prefill", "done_tokens": 2})
    for number in range(5):
        hub.publish("a", step(number))
    hub.publish("a", {"type": "finished"})
    kinds = [(event["type"], event.get("step", event.get("done_tokens"))) for event in all_events(subscription)]
    assert kinds == [("idle", None), ("prefill", 1), ("prefill", 2), ("step", 4), ("finished", None)]


def test_page_maps_come_as_base64_of_their_rows(hub):
    page_reads = np.arange(6, dtype=np.uint8).reshape(2, 3)
    hub.publish("a", step(0))
    hub.publish("a", step(1, page_reads))
    event = hub.step("a", 1)
    assert base64.b64decode(event["page_reads"]) == bytes(range(6))
    assert hub.step("a", 0)["page_reads"] is None
    json.dumps(event)


def test_conversations_do_not_hear_each_other(hub):
    one, other = hub.subscribe("a"), hub.subscribe("b")
    hub.publish("a", step(0))
    assert [event["type"] for event in all_events(one)] == ["idle", "step"]
    assert [event["type"] for event in all_events(other)] == ["idle"]
    assert hub.step("b", 0) is None


def test_steps_of_the_last_answer_are_kept_and_bounded(hub):
    for number in range(KEPT_STEPS + 3):
        hub.publish("a", step(number))
    hub.publish("a", {"type": "finished"})
    assert hub.step("a", 2) is None and hub.step("a", 3)["step"] == 3
    assert hub.subscribe("a").next(0) == {"type": "idle", "steps": KEPT_STEPS + 3, "end": {"type": "finished"}}
    hub.publish("a", {"type": "prefill"})
    assert hub.step("a", 3) is None


def test_who_comes_while_it_runs_is_not_told_idle(hub):
    hub.publish("a", {"type": "prefill"})
    assert hub.subscribe("a").next(0) is None


def test_closing_wakes_a_waiting_watcher(hub):
    subscription = hub.subscribe("a")
    subscription.next(0)
    got = []
    watcher = threading.Thread(target=lambda: got.append(subscription.next(60)))
    watcher.start()
    subscription.close()
    watcher.join(timeout=30)
    assert got == [None]
    hub.publish("a", step(0))
    assert subscription.next(0) is None


def test_a_forgotten_conversation_keeps_nothing(hub):
    hub.publish("a", step(0))
    hub.forget("a")
    hub.publish("a", step(1))  # an answer that was still ending
    assert hub.step("a", 0) is hub.step("a", 1) is None
    assert hub.subscribe("a").next(0) == {"type": "idle", "steps": 0}


def test_watchers_of_a_forgotten_conversation_are_told_to_go():
    hub = TelemetryHub()
    hub.open("a")
    assert not hub.is_watched("a")
    subscription = hub.subscribe("a")
    assert hub.is_watched("a")
    hub.forget("a")
    assert subscription.closed
    assert not hub.is_watched("a")


def test_what_is_no_part_of_an_answer_is_told_and_changes_nothing(hub):
    one, other = hub.subscribe("a"), hub.subscribe("b")
    hub.publish("a", step(0))
    hub.publish("a", {"type": "finished"})
    all_events(one), all_events(other)
    hub.tell("a", {"type": "changed"})
    hub.tell("nobody", {"type": "changed"})
    hub.tell_all({"type": "library"})
    hub.tell_all({"type": "library"})  # nobody has looked in between
    assert all_events(one) == [{"type": "changed"}, {"type": "library"}]
    assert all_events(other) == [{"type": "library"}]
    idle = hub.subscribe("a").next(0)
    assert (hub.step("a", 0)["step"], idle["type"], idle["steps"]) == (0, "idle", 1)
