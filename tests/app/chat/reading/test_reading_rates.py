"""How fast a model reads: what is estimated, what is kept, and what reading a sample book takes."""

from __future__ import annotations

import json

import pytest

from app.chat.reading.prefill_timer import PrefillRates, PrefillTimer
from app.chat.reading.reading_rates import RATES_FILE, ReadingRates
from app.library.sample_books import SAMPLE_BOOKS

RATES = PrefillRates(0.002, 1e-6, 4000)


def test_rates_are_those_of_what_was_computed():
    timer = PrefillTimer()
    assert timer.rates() is None
    for done in range(1000, 4001, 500):
        timer.remaining_s(done, 4000, 0.002 * done + 5e-7 * done**2, reused_tokens=1000)
    rates = timer.rates()
    assert rates.measured_tokens == 4000
    assert rates.seconds(8000) == pytest.approx(0.002 * 8000 + 5e-7 * 8000**2)
    short = PrefillTimer()
    for done in (0, 200):
        short.remaining_s(done, 200, done / 100)
    assert short.rates() is None


def test_nothing_is_guessed_and_a_longer_text_is_a_lower_bound(tmp_path):
    rates = ReadingRates(tmp_path / RATES_FILE)
    rates.note("model", None)
    assert rates.estimate("model", 100) is None
    rates.note("model", RATES)
    near, far = rates.estimate("model", 8000), rates.estimate("model", 50_000)
    assert near.seconds == RATES.seconds(8000) and not near.is_least and near.is_of_this_run
    assert far.is_least
    assert rates.estimate("another", 8000) is None


def test_a_short_measurement_does_not_replace_a_long_one(tmp_path):
    rates = ReadingRates(tmp_path / RATES_FILE)
    rates.note("model", RATES)
    rates.note("model", PrefillRates(9.0, 0.0, 400))
    assert rates.estimate("model", 1000).seconds == RATES.seconds(1000)
    rates.note("model", PrefillRates(9.0, 0.0, 3000))
    assert rates.estimate("model", 1000).seconds == 9000


def test_what_was_measured_is_there_after_a_restart_if_it_may_be_written(tmp_path):
    path = tmp_path / RATES_FILE
    ReadingRates(path, is_written=False).note("model", RATES)
    assert not path.exists()
    ReadingRates(path).note("model", RATES)
    again = ReadingRates(path).estimate("model", 1000)
    assert again.seconds == RATES.seconds(1000) and not again.is_of_this_run
    # A folder that cannot be written to is no reason to stop reading.
    ReadingRates(tmp_path / "gone" / RATES_FILE).note("model", RATES)


@pytest.mark.parametrize(
    "kept",
    [
        "",
        "[1]",
        '{"model": 1}',
        *(
            json.dumps({"model": {"per_token_s": a, "per_attended_s": b, "measured_tokens": tokens}})
            for a, b, tokens in (
                (-1, 0, 9),
                (0, 0, 9),
                (float("nan"), 0, 9),
                (float("inf"), 0, 9),
                (1, 0, 0),
                ("x", 0, 9),
            )
        ),
    ],
)
def test_a_file_that_is_not_as_it_was_written_tells_nothing(tmp_path, kept):
    (tmp_path / RATES_FILE).write_text(kept)
    assert ReadingRates(tmp_path / RATES_FILE).estimate("model", 100) is None


def test_sample_books_say_what_reading_them_takes_and_are_added_under_their_titles(open_assistant):
    assistant = open_assistant(window_tokens=4096)
    conversation = assistant.new_conversation()
    samples = assistant.library_json(conversation.conversation_id)["samples"]
    assert [one["title"] for one in samples] == [book.title for book in SAMPLE_BOOKS]
    assert all(one["reading"]["reading"] is None and not one["reading"]["fits"] for one in samples)
    assert [one["title"] for one in assistant.library_json("", "jane AUSTEN")["samples"]] == [SAMPLE_BOOKS[1].title]
    assistant._parts.rates.note(assistant._parts.rates_key(), RATES)
    prince, novel = (one["reading"] for one in assistant.library_json(conversation.conversation_id)["samples"])
    assert 0 < novel["window_share"] < prince["window_share"] < 1
    # Neither fits: a question gets as many tokens of the one as of the other.
    assert novel["reading"]["seconds"] == prince["reading"]["seconds"] > 0
    entry = assistant.add_sample_book(conversation, SAMPLE_BOOKS[0].document_id)
    assert (entry.name, entry.file_name) == (SAMPLE_BOOKS[0].title, SAMPLE_BOOKS[0].file_name)
    listing = assistant.library_json(conversation.conversation_id)
    assert [one["document_id"] for one in listing["samples"]] == [SAMPLE_BOOKS[1].document_id]
    assert listing["documents"][0]["in_conversation"] and SAMPLE_BOOKS[0].path.is_file()


def test_a_document_whose_file_is_gone_is_told(open_assistant):
    assistant = open_assistant(loaded=False)
    conversation = assistant.new_conversation()
    entry = assistant.add_sample_book(conversation, SAMPLE_BOOKS[1].document_id)
    assert assistant.library.wait(entry.document_id).state == "read"
    assert assistant.library_json(conversation.conversation_id)["documents"][0]["file_is_there"]
    next((assistant.settings.data_dir / "documents").glob("*.txt")).unlink()
    assert not assistant.library_json(conversation.conversation_id)["documents"][0]["file_is_there"]
