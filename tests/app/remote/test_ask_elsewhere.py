"""`ask` over another engine: what is told on the terminal."""

from __future__ import annotations

from app.ask import run_ask
from app.settings import AppSettings
from tests.app.remote.misbehaving_server import DONE, chunk
from tests.app.test_ask import arguments


def test_an_unknown_window_is_told_once_and_why_the_engine_cut_the_answer(server, data_dir, book_path, capsys):
    server.models = (200, {"data": [{"id": "small"}]})
    server.says(chunk("The daughter of", "content_filter"), DONE)
    run_ask(AppSettings(data_dir, engine_url=server.url), arguments([book_path]))
    shown = capsys.readouterr()
    assert shown.out == "The daughter of\n" and f"Cut by {server.url}: its content filter" in shown.err
    assert shown.err.count("does not say how much its model takes") == 1
