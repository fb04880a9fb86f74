"""Kill the real server again and again and look at what is left: `python tests/crash/crash_runs.py --runs N`.

Each run is a process with the whole app (server, page, engine, store) over one data folder and a tiny model, a restless
user in it, and a SIGKILL at a random moment after it was ready, now and then before. Then the store is checked with
SQLite's own check, now and then a snapshot is damaged, and the next run must come up, still have every answer that was
finished, and give right answers. Runs are forked from one process that has imported everything and started no thread:
that takes a start from ten seconds to one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

PATIENCE_S = 120.0
# How long a server works before it is killed, at most; and how often it is killed while it still starts.
WORKING_S = 1.0
KILLED_STARTING_FRACTION = 0.1
DAMAGED_FRACTION = 0.3
DATABASE = "quest-chat.sqlite3"
# What has been answered is looked for in the run after it, and some of all that came before.
RECHECKED = 10


@dataclass
class Report:
    """What the runs have shown; `faults` must stay empty."""

    seed: int
    runs: int = 0
    answers: int = 0
    documents_added: int = 0
    snapshots_seen: int = 0
    snapshots_damaged: int = 0
    answers_checked_after_restart: int = 0
    interrupted_answers: int = 0
    killed_while: Counter[str] = field(default_factory=Counter)
    faults: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "killed_while": dict(sorted(self.killed_while.items()))}


class CrashRuns:
    """A data folder that survives one killed server after the other.

    Args:
        folder: for the model, the documents and the data folder.
        seed: of what is done, when it is killed, and what is damaged.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self._random = random.Random(seed)
        self.report = Report(seed)
        self._folder = folder
        self._data_dir = folder / "data"
        self._documents = _write_documents(folder / "documents")
        _in_child(lambda: _write_model(folder / "model"))
        _import_everything(folder / "model")
        self._expected = self._expected_answers()
        _load_kernels()
        self._answers: dict[str, dict[str, Any]] = {}  # turn id -> what was told, of conversations not deleted
        self._gone: set[str] = set()  # conversations whose deletion had begun

    def _settings(self, data_dir: Path, port: int = 7860):
        from app.settings import AppSettings

        return AppSettings(
            data_dir=data_dir,
            model=str(self._folder / "model"),
            device="cpu",
            dtype="float32",
            offline=True,
            port=port,
            no_browser=True,
            cache_bytes=4 << 20,
        )

    def _expected_answers(self) -> dict[tuple[str, str], str]:
        """What the model answers to each question over each document when nothing is kept from before."""
        from app.chat.assistant import Assistant
        from tests.crash.restless_user import OPTIONS, QUESTIONS

        path = self._folder / "expected.json"

        def answer_all() -> None:
            assistant = Assistant(self._settings(self._folder / "unused"), keep=False)
            answers = []
            for document in self._documents:
                for question in QUESTIONS:
                    conversation = assistant.new_conversation()
                    assistant.add_document(conversation, document)
                    *_, last = assistant.answer(conversation, question, OPTIONS)
                    answers.append([document.name, question, last.report.answer])
            path.write_text(json.dumps(answers))

        _in_child(answer_all)
        return {(name, question): answer for name, question, answer in json.loads(path.read_text())}

    def run_once(self) -> None:
        """Start, look, let the user work, kill, look at what is left, and perhaps damage a snapshot."""
        self.report.runs += 1
        port, seed = _free_port(), self._random.getrandbits(32)
        kill_starting = self._random.random() < KILLED_STARTING_FRACTION
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            self._serve(port, seed, writer)
        os.close(writer)
        lines = _Lines(reader)
        try:
            if kill_starting:
                time.sleep(self._random.random() * 1.5)
            elif self._is_ready(port, child, lines):
                self._check_answers(port)
                lines.collect(self._random.random() * WORKING_S)
            else:
                self._fault("the server did not start", lines=lines.texts[-5:])
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        lines.collect_rest()
        self._take(lines)
        self._check_store()
        self._perhaps_damage_a_snapshot()

    def _serve(self, port: int, seed: int, writer: int) -> None:
        """The child: the app as `ui.__main__` runs it, and the user. Never returns."""
        log = os.open(self._folder / "server.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            from app.chat.assistant import Assistant
            from app.web.server import serve
            from tests.crash.restless_user import RestlessUser
            from ui.layout import build_page

            settings = self._settings(self._data_dir, port)
            assistant = Assistant(settings)
            user = RestlessUser(assistant, self._documents, self._expected, seed, writer)
            threading.Thread(target=user.run, daemon=True).start()
            serve(settings, assistant, build_page)
        except BaseException as error:
            os.write(writer, (json.dumps({"what": "failed", "error": repr(error)}) + "\n").encode())
            raise
        finally:
            os._exit(1)

    def _is_ready(self, port: int, child: int, lines: _Lines) -> bool:
        """Wait until server and model are there; False if the process ended, or took too long."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            lines.collect(0.02)
            if any(line["what"] == "failed" for line in lines.parsed):
                return False
            if any(line["what"] == "ready" for line in lines.parsed) and _get(port, "/healthz") is not None:
                return True
        return False

    def _check_answers(self, port: int) -> None:
        """Every answer of the last run, and some of those before, must be there as they were told."""
        newest = list(self._answers)[-RECHECKED:]
        others = self._random.sample(sorted(self._answers), min(RECHECKED, len(self._answers)))
        for turn_id in {*newest, *others}:
            told = self._answers[turn_id]
            exported = _get(port, f"/conversations/{told['conversation']}/export.json")
            self.report.answers_checked_after_restart += 1
            if exported is None:
                # The user who is at work in there may have deleted it a moment ago: the next run knows.
                continue
            turns = {turn["turn_id"]: turn for turn in exported["turns"] + exported["other_turns"]}
            kept = turns.get(turn_id)
            if kept is None or (kept["question"], kept["answer"]) != (told["question"], told["answer"]):
                self._fault("a finished answer is lost", told=told, kept=kept)

    def _take(self, lines: _Lines) -> None:
        """Note what the killed server had said."""
        doing = "starting"
        for line in lines.parsed:
            what = line["what"]
            if what == "doing":
                doing = line["action"]
            elif what == "answered":
                self.report.answers += 1
                self._answers[line["turn"]] = line
            elif what == "added":
                self.report.documents_added += 1
            elif what == "deleting":
                self._gone.add(line["conversation"])
            elif what in ("failed", "wrong answer"):
                self._fault(what, **{name: value for name, value in line.items() if name != "what"})
        self._answers = {turn: told for turn, told in self._answers.items() if told["conversation"] not in self._gone}
        self.report.killed_while[doing] += 1

    def _check_store(self) -> None:
        """SQLite's own check, on a copy: the next server must mend what is left by itself. And nothing may be lost."""
        if not (self._data_dir / DATABASE).exists():
            return
        copy = self._folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for path in self._data_dir.glob(f"{DATABASE}*"):
            shutil.copy(path, copy / path.name)
        connection = sqlite3.connect(copy / DATABASE)
        try:
            if (verdict := connection.execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
                self._fault("the store is damaged", verdict=verdict)
            if broken := connection.execute("PRAGMA foreign_key_check").fetchall():
                self._fault("the store contradicts itself", rows=broken[:3])
            if self._has_table(connection, "turns"):
                kept = {str(turn): answer for turn, answer in connection.execute("SELECT turn_id, answer FROM turns")}
                for turn_id, told in self._answers.items():
                    if kept.get(turn_id) != told["answer"]:
                        self._fault("a finished answer is lost", told=told, kept=kept.get(turn_id))
                unfinished = "SELECT count(*) FROM turns WHERE state = 'answering'"
                self.report.interrupted_answers += connection.execute(unfinished).fetchone()[0]
        except sqlite3.DatabaseError as error:
            self._fault("the store cannot be read", error=str(error))
        finally:
            connection.close()

    @staticmethod
    def _has_table(connection: sqlite3.Connection, name: str) -> bool:
        return bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone())

    def _perhaps_damage_a_snapshot(self) -> None:
        """Cut one off or flip a bit of it; the answers of the runs to come must not change."""
        snapshots = sorted(self._data_dir.glob("snapshots/**/*.safetensors"))
        self.report.snapshots_seen += len(snapshots)
        if not snapshots or self._random.random() > DAMAGED_FRACTION:
            return
        path = self._random.choice(snapshots)
        size = path.stat().st_size
        with path.open("r+b") as file:
            if self._random.random() < 0.5:
                file.truncate(self._random.randrange(size))
            else:
                file.seek(self._random.randrange(size))
                byte = file.read(1)
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte[0] ^ 1 << self._random.randrange(8)]))
        self.report.snapshots_damaged += 1

    def _fault(self, what: str, **values: Any) -> None:
        self.report.faults.append({"run": self.report.runs, "fault": what, **values})


class _Lines:
    """What a child writes into its pipe, as it comes."""

    def __init__(self, reader: int) -> None:
        os.set_blocking(reader, False)
        self._reader = reader
        self._rest = b""
        self.texts: list[str] = []
        self.parsed: list[dict[str, Any]] = []

    def collect(self, seconds: float) -> None:
        """Read for so long."""
        deadline = time.monotonic() + seconds
        while True:
            self._read()
            left = deadline - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(0.01, left))

    def collect_rest(self) -> None:
        """Read to the end; the child is dead."""
        self._read()
        os.close(self._reader)

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self._reader, 1 << 16)
            except BlockingIOError:
                return
            if not chunk:
                return
            *whole, self._rest = (self._rest + chunk).split(b"\n")
            self.texts += [line.decode() for line in whole]
            self.parsed += [json.loads(line) for line in whole]


def _in_child(work) -> None:
    """Do `work` in a forked process, so that the threads it starts are none of ours."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    if os.waitpid(child, 0)[1] != 0:
        raise RuntimeError("a preparing process failed")


def _write_model(folder: Path) -> None:
    from tests.app.conftest import write_model

    write_model(folder)


def _write_documents(folder: Path) -> list[Path]:
    folder.mkdir()
    sentences = (
        "The harbour lay still in the morning and the boats came home one after the other.",
        "Nobody in the village knew why the lighthouse keeper had left, or where he had gone.",
        "The daughter of the keeper kept the light every night of the winter.",
    )
    paths = []
    for number in range(6):
        path = folder / f"harbour-{number}.txt"
        text = " ".join(sentences[(number + line) % 3] for line in range(4 + 3 * number))
        path.write_text(f"Story {number}. {text}", encoding="utf-8")
        paths.append(path)
    return paths


def _import_everything(model: Path) -> None:
    """All that a server imports sooner or later, without starting a thread, which would not survive a fork."""
    import importlib
    import pkgutil

    from app.settings import set_library_defaults

    set_library_defaults(offline=True)
    import anyio._backends._asyncio  # noqa: F401
    import uvicorn.lifespan.on  # noqa: F401
    import uvicorn.loops.auto  # noqa: F401

    import app
    import quest_core
    import ui
    from quest_core.model.model_folder import read_model_config

    for package in (app, quest_core, ui):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.startswith("app.measure") and "__main__" not in module.name:
                importlib.import_module(module.name)
    # Transformers imports a family's modules when it first reads a configuration of it.
    read_model_config(model)
    if threading.active_count() > 1:
        raise RuntimeError(f"imports have started threads: {threading.enumerate()}")


def _load_kernels() -> None:
    """The compiled kernels that a cache on the disk has by now, which each server would take half a second to load."""
    from numba.core.dispatcher import Dispatcher

    for module in list(sys.modules.values()):
        if module.__name__.startswith("kernels."):
            for function in vars(module).values():
                if isinstance(function, Dispatcher):
                    for signature, *_ in function._cache._cache_file._load_index():
                        function.compile(signature)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _get(port: int, path: str) -> Any:
    """The JSON at a path of the server; None if there is none, or no server."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE_S) as response:
            return json.load(response)
    except (OSError, urllib.error.HTTPError):
        return None


def _machine() -> dict[str, Any]:
    """What it ran on."""
    import torch

    from app.measure.machine import describe_machine

    return describe_machine(torch.device("cpu"))


def main() -> int:
    """Run from the command line; exit code 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="quest-chat-crash-") as folder:
        crashes = CrashRuns(Path(folder), arguments.seed)
        for number in range(1, arguments.runs + 1):
            crashes.run_once()
            if number % 50 == 0 or number == arguments.runs:
                print(f"{number} runs: {len(crashes.report.faults)} faults", file=sys.stderr, flush=True)
                # So that hours of them are not lost with the last.
                _write(crashes.report, arguments.json)
    return 1 if crashes.report.faults else 0


def _write(report: Report, path: Path | None) -> None:
    text = json.dumps({"machine": _machine(), **report.to_json()}, indent=2) + "\n"
    if path is None:
        print(text)
    else:
        path.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
