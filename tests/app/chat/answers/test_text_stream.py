"""Text comes out whole: characters of several tokens, stop strings across tokens, control tokens hidden."""

from __future__ import annotations

import pytest

from app.chat.answers.text_stream import TextStream


def stream_text(chat_tokenizer, token_ids, stop=()):
    stream = TextStream(chat_tokenizer.decode, stop)
    deltas = [stream.push(token_id) for token_id in token_ids]
    return stream, [*deltas, stream.finish()]


@pytest.mark.parametrize("text", ["The harbour lay still.", " führt 漢字 und 😀😀 zusammen", "a\n\n  b", ""])
def test_deltas_add_up_to_the_text(chat_tokenizer, text):
    stream, deltas = stream_text(chat_tokenizer, chat_tokenizer.encode(text).token_ids)
    assert "".join(deltas) == text == stream.text


def test_no_delta_holds_half_a_character(chat_tokenizer):
    token_ids = chat_tokenizer.encode("漢😀").token_ids
    assert len(token_ids) > 2
    _, deltas = stream_text(chat_tokenizer, token_ids)
    assert [delta for delta in deltas if delta] == ["漢", "😀"]


def test_an_incomplete_character_at_the_end_is_dropped(chat_tokenizer):
    token_ids = chat_tokenizer.encode("so 😀").token_ids[:-1]
    stream, _ = stream_text(chat_tokenizer, token_ids)
    assert stream.text == "so "


def test_bad_bytes_do_not_hold_text_back_forever(chat_tokenizer):
    half = chat_tokenizer.encode("😀").token_ids[:1]
    stream, _ = stream_text(chat_tokenizer, [*half * 20, *chat_tokenizer.encode("end").token_ids])
    assert stream.text.endswith("end")


def test_control_tokens_are_hidden(chat_tokenizer):
    token_ids = [*chat_tokenizer.encode("one").token_ids, 1, 2, *chat_tokenizer.encode(" two").token_ids]
    assert stream_text(chat_tokenizer, token_ids)[0].text == "one two"


def test_a_stop_string_across_tokens_ends_the_text_before_it(chat_tokenizer):
    token_ids = [token for letter in "light\nUser: more" for token in chat_tokenizer.encode(letter).token_ids]
    stream, deltas = stream_text(chat_tokenizer, token_ids, stop=["\nUser:"])
    assert stream.stopped and stream.text == "light" == "".join(deltas)
    assert stream.kept_tokens == len("light")


def test_what_only_looked_like_a_stop_string_comes_out(chat_tokenizer):
    token_ids = [token for letter in "a\nUse it\nUs" for token in chat_tokenizer.encode(letter).token_ids]
    stream, deltas = stream_text(chat_tokenizer, token_ids, stop=["\nUser:"])
    assert not stream.stopped and "".join(deltas) == "a\nUse it\nUs"
    assert stream.kept_tokens == len(token_ids)
    assert deltas[-1] == "\nUs"


def test_the_first_of_several_stop_strings_counts(chat_tokenizer):
    token_ids = chat_tokenizer.encode("one two three").token_ids
    assert stream_text(chat_tokenizer, token_ids, stop=["three", " tw", ""])[0].text == "one"
