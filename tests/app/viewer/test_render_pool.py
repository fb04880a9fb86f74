"""Render processes that hang, crash, are ended, and what waits for them."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, Future
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import psutil
import pytest

from app.errors import UserFacingError
from app.viewer import document_viewer
from app.viewer.document_viewer import DocumentViewer
from app.viewer.errors import ProcessLost, RenderBusy, RenderError
from app.viewer.render_connection import RenderConnection
from app.viewer.render_pool import RenderPool

ROOT = Path(__file__).parents[3]
WAIT_S = 30
LINES = ["The harbour lay still in the morning"]
needs_signals = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs signals")


def render_processes() -> list[psutil.Process]:
    return [
        process for process in psutil.Process().children() if "app.viewer.render_process" in " ".join(process.cmdline())
    ]


@pytest.fixture
def one_process_viewer(shelf):
    pool = RenderPool(processes=1)
    yield DocumentViewer(shelf, pool)
    pool.close()
    assert render_processes() == []


@needs_signals
def test_a_process_that_hangs_is_killed_and_its_page_not_tried_again_at_once(
    one_process_viewer, shelf, make_pdf, monkeypatch
):
    monkeypatch.setattr(document_viewer, "_ANSWER_S", 0.5)
    document_id = shelf.add(make_pdf([LINES, LINES]), *LINES * 2)
    one_process_viewer.description(document_id).result(WAIT_S)
    (process,) = render_processes()
    process.suspend()
    with pytest.raises(ProcessLost, match="too long"):
        one_process_viewer.image(document_id, 0, 800).result(WAIT_S)
    assert not process.is_running()
    monkeypatch.setattr(document_viewer, "_ANSWER_S", 15.0)
    # The next page comes from a new one.
    assert one_process_viewer.image(document_id, 1, 800).result(WAIT_S)
    with pytest.raises(RenderError, match="too long"):
        one_process_viewer.image(document_id, 0, 800).result(WAIT_S)
    monkeypatch.setattr(document_viewer, "_FAILED_S", 0.0)
    assert one_process_viewer.image(document_id, 0, 800).result(WAIT_S)


@needs_signals
def test_a_process_that_crashes_takes_one_page_with_it(one_process_viewer, shelf, make_pdf):
    document_id = shelf.add(make_pdf([LINES, LINES]), *LINES * 2)
    one_process_viewer.description(document_id).result(WAIT_S)
    (process,) = render_processes()
    process.suspend()
    image = one_process_viewer.image(document_id, 0, 800)
    time.sleep(0.1)
    process.kill()
    with pytest.raises(ProcessLost, match="damaged"):
        image.result(WAIT_S)
    assert one_process_viewer.image(document_id, 1, 800).result(WAIT_S)


@needs_signals
def test_removing_a_document_does_not_cost_others_their_pages(one_process_viewer, shelf, make_pdf):
    document_id = shelf.add(make_pdf([LINES]), *LINES)
    other_id = shelf.add(make_pdf([LINES], name="other.pdf"), *LINES)
    one_process_viewer.description(other_id).result(WAIT_S)
    (process,) = render_processes()
    process.suspend()
    image = one_process_viewer.image(document_id, 0, 800)
    time.sleep(0.1)
    one_process_viewer.forget(other_id)
    assert not process.is_running()
    assert image.result(WAIT_S)


def test_a_page_that_needs_too_much_memory_or_time_takes_only_its_process(one_process_viewer, shelf, make_pdf):
    # Letters by the million swell while they are sorted into lines.
    letters = " ".join(f"({'a' * 500}) Tj" for _ in range(12_000))
    document_id = shelf.add(make_pdf([f"BT /F1 1 Tf {letters} ET", LINES]), "a" * 90_000, *LINES)
    one_process_viewer.description(document_id).result(WAIT_S)
    (process,) = render_processes()
    assert one_process_viewer.marks(document_id, 0, 0, 5).result(60) == []
    assert not process.is_running()
    (box,) = one_process_viewer.marks(document_id, 1, 0, len(LINES[0])).result(WAIT_S)
    assert box[0] < box[2]


@pytest.fixture
def blocked():
    """A pool of one process that does nothing else until the event is set; every job is a burst of its own."""
    pool = RenderPool(processes=1, most_waiting=3, burst_s=0.0)
    go_on, started = threading.Event(), threading.Event()

    def wait(connection: RenderConnection) -> None:
        started.set()
        go_on.wait(WAIT_S)

    pool.run(wait)
    assert started.wait(WAIT_S)
    yield pool, go_on
    go_on.set()
    pool.close()


def test_the_newest_comes_first_and_the_oldest_is_given_up(blocked):
    pool, go_on = blocked
    done: list[int] = []
    futures: list[Future] = [pool.run(lambda connection, number=number: done.append(number)) for number in range(5)]
    for future in futures[:2]:
        with pytest.raises(RenderBusy):
            future.result(WAIT_S)
    futures[3].cancel()
    go_on.set()
    futures[2].result(WAIT_S)
    assert done == [4, 2]


def test_what_nobody_waits_for_any_more_makes_room(blocked):
    pool, go_on = blocked
    futures = [pool.run(lambda connection: "done") for _ in range(3)]
    futures[1].cancel()
    futures.append(pool.run(lambda connection: "done"))
    go_on.set()
    assert [future.result(WAIT_S) for future in (futures[0], futures[2], futures[3])] == ["done"] * 3


def test_what_is_asked_for_together_comes_in_its_order_before_what_was_asked_for_earlier(blocked):
    pool, go_on = blocked
    done: list[str] = []
    futures = [pool.run(lambda connection: done.append("scrolled away"))]
    futures.append(pool.run(lambda connection: done.append("in sight")))
    pool._burst_s = 60.0
    futures.append(pool.run(lambda connection: done.append("its neighbour")))
    go_on.set()
    for future in futures:
        future.result(WAIT_S)
    assert done == ["in sight", "its neighbour", "scrolled away"]


def test_the_oldest_has_its_turn_while_new_ones_come(blocked):
    pool, go_on = blocked
    done: list[str] = []

    def ask_again(connection: RenderConnection) -> None:
        done.append("new")
        if len(done) < 12:
            pool.run(ask_again)

    old = pool.run(lambda connection: done.append("old"))
    pool.run(ask_again)
    go_on.set()
    old.result(WAIT_S)
    assert done.index("old") < 4


def test_a_process_of_a_large_parent_is_not_taken_for_a_large_one(one_process_viewer, shelf, make_pdf):
    # What a parent has in memory is told of its children by some ways of asking.
    large = bytearray(600 << 20)
    large[::4096] = b"x" * len(large[::4096])
    document_id = shelf.add(make_pdf([LINES, LINES]), *LINES * 2)
    one_process_viewer.image(document_id, 0, 800).result(WAIT_S)
    (process,) = render_processes()
    one_process_viewer.image(document_id, 1, 800).result(WAIT_S)
    assert process.is_running() and len(large) > 0


def test_what_waits_when_all_ends_is_told(blocked):
    pool, go_on = blocked
    waiting = pool.run(lambda connection: None)
    threading.Timer(0.2, go_on.set).start()
    pool.close()
    with pytest.raises(CancelledError):
        waiting.result(WAIT_S)
    with pytest.raises(RenderBusy, match="ending"):
        pool.run(lambda connection: None).result(WAIT_S)
    assert render_processes() == []


def test_idle_processes_end_and_come_again(shelf, make_pdf):
    pool = RenderPool(idle_s=0.2)
    viewer = DocumentViewer(shelf, pool)
    document_id = shelf.add(make_pdf([LINES, LINES]), *LINES * 2)
    assert viewer.image(document_id, 0, 800).result(WAIT_S)
    assert render_processes()
    end = time.monotonic() + WAIT_S
    while render_processes():
        assert time.monotonic() < end, "the process does not end"
        time.sleep(0.05)
    assert viewer.image(document_id, 1, 800).result(WAIT_S)
    pool.close()


def test_a_process_that_cannot_be_started_is_told(one_process_viewer, shelf, make_pdf, monkeypatch):
    document_id = shelf.add(make_pdf([LINES]), *LINES)
    with monkeypatch.context() as failing:
        failing.setattr("app.viewer.render_connection.start_python", Mock(side_effect=OSError("no more processes")))
        with pytest.raises(UserFacingError, match="no more processes"):
            one_process_viewer.image(document_id, 0, 800).result(WAIT_S)
    assert one_process_viewer.image(document_id, 0, 800).result(WAIT_S)


def test_many_threads_get_what_they_ask_for(viewer, shelf, make_pdf):
    document_id = shelf.add(make_pdf([[f"page {number}"] for number in range(12)]), *["page"] * 12)
    images: dict[int, bytes] = {}

    def ask(page_index: int) -> None:
        images[page_index] = viewer.image(document_id, page_index, 320).result(WAIT_S)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(images.values())) == 12
    assert len(render_processes()) <= 2


@pytest.mark.parametrize(
    "answer", ["[]", '{"bytes": -1}', '{"bytes": 99999999999, "cpu_s": 0, "memory_bytes": 0}', "{"]
)
def test_a_process_that_answers_nonsense_is_lost(monkeypatch, answer):
    def start(module: str) -> subprocess.Popen:
        code = f"import sys; sys.stdin.readline(); print({answer!r}, flush=True); sys.stdin.read()"
        return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    monkeypatch.setattr("app.viewer.render_connection.start_python", start)
    connection = RenderConnection()
    with pytest.raises(ProcessLost):
        connection.ask({"kind": "pages", "path": "x"}, WAIT_S)
    assert not connection.is_usable
    connection.close()


def test_without_pdfium_it_is_said_what_to_install(monkeypatch):
    import app.viewer.render_process as render_process

    monkeypatch.setitem(sys.modules, "app.viewer.page_rendering", None)
    monkeypatch.setattr(render_process, "end_with_starter", lambda: None)
    monkeypatch.setattr(render_process, "limit_this_process", lambda *limits: None)
    monkeypatch.setattr(render_process.logging, "disable", lambda level: None)
    answers = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b'{"kind": "pages", "path": "x"}\n')))
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=answers))
    render_process.main()
    assert json.loads(answers.getvalue())["error"] == "not_installed"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_process_is_bare_and_limited_and_cannot_write(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "do not tell")
    connection = RenderConnection()
    try:
        with pytest.raises(RenderError, match="gone"):
            connection.ask({"kind": "pages", "path": "/nowhere.pdf"}, WAIT_S)
        (process,) = render_processes()
        assert b"do not tell" not in Path(f"/proc/{process.pid}/environ").read_bytes()
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        for name, value in (("Max address space", 1 << 30), ("Max file size", 0), ("Max cpu time", 1200)):
            (line,) = (line for line in limits.splitlines() if line.startswith(name))
            assert line.split()[3] == str(value)
    finally:
        connection.close()


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_the_process_ends_with_its_parent(make_pdf):
    code = (
        "import sys, time\nfrom app.viewer.render_connection import RenderConnection\n"
        "connection = RenderConnection()\nconnection.ask({'kind': 'pages', 'path': sys.argv[1]}, 30)\n"
        "print(connection._process.pid, flush=True)\ntime.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(make_pdf([LINES]))]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
    process = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    process.wait(WAIT_S)
