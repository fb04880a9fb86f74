"""What is told about a stretched window."""

from __future__ import annotations

from app.chat.reading.stretch_notes import reread_note, stretch_warning, window_note


def test_a_window_of_the_models_own_needs_no_note():
    assert window_note(8192, 8192, 1.0) == window_note(8192, 4096, 1.0) == ""
    assert stretch_warning(1.0) == stretch_warning(2.0) == ""


def test_a_longer_one_says_how_it_is_read_and_what_it_costs():
    note = window_note(8192, 16384, 2.0)
    assert "trained on 8,192 tokens" in note and "read again" in note
    assert "2 times for the whole window of 16,384" in note
    assert "few facts" not in note
    assert "few facts" in window_note(8192, 32768, 4.0) and "few facts" in stretch_warning(4.0)


def test_why_a_conversation_is_read_again():
    assert "outgrown" in reread_note(2.0) and "2 times" in reread_note(2.0)
    assert "unstretched" in reread_note(1.0)
