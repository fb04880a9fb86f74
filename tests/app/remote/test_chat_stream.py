"""What a server says, in whatever pieces and however badly, as pieces or as one plain sentence."""

from __future__ import annotations

import json
import socket

import pytest

from app.remote import chat_stream
from app.remote.chat_stream import ChatStream, Piece, Waiting
from app.remote.server_address import ServerAddress
from app.remote.server_errors import ServerError
from tests.app.remote.misbehaving_server import DONE, chunk

BODY = {"model": "small", "messages": [{"role": "user", "content": "Who?"}], "stream": True}
KEY = "sk-hush-123"


def said(url: str) -> list[Waiting | Piece]:
    with ChatStream(ServerAddress.of(url, KEY), BODY) as stream:
        return list(stream)


def text(pieces: list[Waiting | Piece]) -> str:
    return "".join(piece.text for piece in pieces if isinstance(piece, Piece))


def failure(url: str) -> ServerError:
    with pytest.raises(ServerError) as raised:
        said(url)
    assert KEY not in raised.value.message
    return raised.value


def test_text_thought_end_and_usage_are_told(server):
    server.says(
        b": comment\n\n",
        chunk(None, reasoning_content="Hm. "),
        chunk("The "),
        chunk("daughter."),
        chunk(None, "stop"),
        b'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}\r\n\r\n',
        DONE,
    )
    pieces = said(server.url)
    assert text(pieces) == "The daughter." and pieces[0] == Piece(thinking="Hm. ")
    assert pieces[-2].finish_reason == "stop" and pieces[-1].usage["prompt_tokens"] == 9
    assert server.requests[0][1]["Authorization"] == f"Bearer {KEY}"


def test_a_character_may_come_in_two_pieces(server):
    data = chunk("Tür 🚪 zu") + chunk(None, "stop") + DONE
    server.says(*(part for byte in data for part in (bytes([byte]),)))
    assert text(said(server.url)) == "Tür 🚪 zu"


def events(text: str, line_end: str = "\n") -> bytes:
    """A whole answer as it may come, too: with a BOM, comments, other fields, and an event of several lines."""
    first = json.dumps({"choices": [{"delta": {"content": text}}]}, ensure_ascii=False, indent=1).splitlines()
    last = json.dumps({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    lines = [": warming up", "", "event: message", *(f"data: {line}" for line in first), "id: 7", "", "retry: 10", ""]
    lines += [f"data:{last}", ":", "", "data: [DONE]", "", ""]
    return b"\xef\xbb\xbf" + line_end.join(lines).encode()


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_events_are_read_as_the_specification_of_event_streams_has_it(server, line_end):
    server.says(events("Tür 🚪 zu", line_end))
    assert text(said(server.url)) == "Tür 🚪 zu"


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_an_event_may_be_split_anywhere(line_end):
    import asyncio

    data = events("ü🚪", line_end)
    address = ServerAddress.of("http://127.0.0.1:1")

    async def read(cut: int) -> list[str]:
        async def parts():
            yield data[:cut]
            yield data[cut:]

        request = chat_stream.httpx2.Request("POST", address.base)
        response = chat_stream.httpx2.Response(200, content=parts(), request=request)
        return [event async for event in chat_stream._events(address, response)]

    for cut in range(len(data) + 1):
        first, *others = asyncio.run(read(cut))
        assert json.loads(first)["choices"][0]["delta"]["content"] == "ü🚪"
        assert len(others) == 2 and others[1] == "[DONE]"


def test_an_event_without_an_end_is_told(server, monkeypatch):
    monkeypatch.setattr(chat_stream, "_MOST_EVENT_BYTES", 1000)
    server.says(chunk("The "), b"data: " + b"x" * 2000)
    error = failure(server.url)
    assert error.kind == "stranger" and "1,000 bytes" in error.message


def test_an_event_that_has_no_end_is_not_taken(server):
    server.says(chunk("The "), chunk("daughter.", "stop").rstrip(b"\n"))
    assert failure(server.url).kind == "cut"


def test_one_that_does_not_stream_says_all_at_once(server):
    reply = {"choices": [{"message": {"content": "All."}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 5}}
    server.says(json.dumps(reply).encode(), Content_Type="application/json")
    assert said(server.url) == [Piece("All.", "", "stop", {"prompt_tokens": 5})]


def test_silence_is_told_while_it_lasts(server, monkeypatch):
    monkeypatch.setattr(chat_stream, "_TOLD_EVERY_S", 0.05)
    server.says(0.4, chunk("Late.", "stop"), DONE)
    pieces = said(server.url)
    assert text(pieces) == "Late." and any(isinstance(piece, Waiting) and piece.silence_s > 0 for piece in pieces)


def test_silence_has_an_end(server, monkeypatch):
    monkeypatch.setattr(chat_stream, "SILENCE_S", 0.2)
    server.says(5.0, chunk("Late.", "stop"))
    assert failure(server.url).kind == "silent"


def test_one_that_is_busy_is_asked_again(server, monkeypatch):
    monkeypatch.setattr(chat_stream, "_RETRY_S", (0.01, 0.01))
    server.fails(429, {"error": {"message": "slow down"}}, Retry_After="0")
    server.fails(503, b"")
    server.says(chunk("Now.", "stop"), DONE)
    pieces = said(server.url)
    busy = [piece.busy for piece in pieces if isinstance(piece, Waiting) and piece.busy]
    assert text(pieces) == "Now." and len(busy) == 2 and "too busy (status 429)" in busy[0] and server.url in busy[0]


def test_one_that_stays_busy_is_given_up(server, monkeypatch):
    monkeypatch.setattr(chat_stream, "_RETRY_S", (0.01,))
    server.fails(429, {"error": {"message": f"quota of {KEY} is used up"}})
    error = failure(server.url)
    assert error.kind == "busy" and "quota of … is used up" in error.message and len(server.questions) == 2


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, {"error": {"message": f"Incorrect API key: {KEY}"}}, "key"),
        (403, b"", "key"),
        (404, {"error": {"message": "The model `small` does not exist.", "code": "model_not_found"}}, "model"),
        (404, {"detail": "Not Found"}, "stranger"),
        (400, {"message": "This model's maximum context length is 2048 tokens."}, "context"),
        (400, {"error": "Requested tokens (9000) exceed context window of 8192"}, "context"),
        (422, {"detail": [{"msg": "top_k: extra fields not permitted"}]}, "refused"),
        (500, b"<html>Traceback</html>", "broken"),
        (502, b"", "broken"),
    ],
)
def test_an_error_is_one_sentence_with_the_address(server, status, body, kind):
    server.fails(status, body)
    error = failure(server.url)
    assert error.kind == kind and server.url in error.message and "<html>" not in error.message


def test_an_error_may_come_within_the_stream(server):
    server.says(chunk("The "), b'data: {"error": {"message": "CUDA out of memory", "code": 500}}\n\n')
    error = failure(server.url)
    assert error.kind == "broken" and "CUDA out of memory" in error.message


@pytest.mark.parametrize(
    ("pieces", "headers", "kind"),
    [
        ([chunk("The ")], {}, "cut"),
        ([chunk("The "), chunk("dau")[:-9]], {}, "cut"),
        ([chunk("The ")], {"Content-Length": "9999"}, "cut"),
        ([], {}, "stranger"),
        ([b"data: {broken\n\n"], {}, "stranger"),
        ([b"data: [1, 2]\n\n"], {}, "stranger"),
        ([b'data: {"choices": 5}\n\n'], {}, "stranger"),
        ([b"<html>Welcome</html>"], {"Content-Type": "text/html"}, "stranger"),
        ([b'{"hello": 1}'], {"Content-Type": "application/json"}, "stranger"),
        ([b"[" * 100_000], {"Content-Type": "application/json"}, "stranger"),
    ],
)
def test_what_is_no_whole_answer_is_told(server, pieces, headers, kind):
    server.replies.append((200, headers, pieces))
    assert failure(server.url).kind == kind


@pytest.mark.parametrize("choice", [None, 5, {"delta": None}, {"delta": {"content": 5}}, {"delta": {"content": None}}])
def test_odd_events_are_passed_over(server, choice):
    data = json.dumps({"choices": [choice] if choice is not None else []}).encode()
    server.says(b"data: " + data + b"\n\n", chunk("Yes.", "stop"), DONE)
    assert text(said(server.url)) == "Yes."


def test_the_key_is_not_sent_along(server):
    server.says(b"", status=307, Location="http://elsewhere.invalid/v1/chat/completions?secret=1")
    error = failure(server.url)
    assert error.kind == "moved" and "http://elsewhere.invalid/v1/chat/completions" in error.message
    assert "secret" not in error.message and len(server.requests) == 1


def test_nobody_there():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    assert failure(url).kind == "unreachable"


def test_nothing_is_left_behind(server, caplog):
    import gc

    server.says(chunk("Yes."), chunk(None, "stop"), DONE, b": still here\n\n" * 2000, 0.1)
    for number in range(20):
        with ChatStream(ServerAddress.of(server.url), BODY) as stream:
            next(iter(stream))
            if number % 2:
                list(stream)
        stream._thread.join(10)
    # Until now a collection could hardly have found anything: what is left of all of them is told now.
    gc.collect()
    assert "destroyed" not in caplog.text


def test_closing_ends_the_connection(server):
    server.says(chunk("The "), *([0.02, chunk("same ")] * 500))
    with ChatStream(ServerAddress.of(server.url), BODY) as stream:
        assert next(iter(stream)).text == "The "
    assert server.left.wait(10)
