"""A process that is killed in the middle of writing loses nothing of what it was told is kept."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.store.conversation_store import ConversationStore
from app.store.database import Database
from app.store.document_store import DocumentStore

ROOT = Path(__file__).parents[3]
ROUNDS = 24
SEED = 17

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


@pytest.mark.slow
def test_nothing_that_was_kept_is_lost(tmp_path):
    random_times = random.Random(SEED)
    data_dir = tmp_path / "data"
    kept_turns: dict[int, str] = {}
    documents: dict[str, str] = {}
    being_removed: set[str] = set()
    with subprocess.Popen(
        [sys.executable, Path(__file__).with_name("writer_process.py"), data_dir],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    ) as writer:
        for seed in range(ROUNDS):
            writer.stdin.write(f"{seed}\n")
            writer.stdin.flush()
            child = int(writer.stdout.readline().split()[1])
            # By what it has done, not by the clock: the machine may be busy.
            said = [writer.stdout.readline().split() for _ in range(random_times.randrange(12))]
            time.sleep(random_times.uniform(0, 0.05))
            os.kill(child, signal.SIGKILL)
            while (line := writer.stdout.readline().split())[0] != "gone":
                said.append(line)
            last = ""
            for line in said:
                last = line[0]
                if line[0] == "turn":
                    kept_turns[int(line[1])] = line[2]
                elif line[0] == "document":
                    documents[line[1]] = line[2]
                else:
                    del documents[line[1]]
            if last == "document":
                # It may have been removed without the word of it.
                being_removed = {list(documents)[-1]}
            check(data_dir, kept_turns, documents, being_removed, is_last=seed == ROUNDS - 1)
            documents = {key: text for key, text in documents.items() if key not in being_removed}
            being_removed = set()
        writer.stdin.close()
    assert len(kept_turns) > ROUNDS


def check(data_dir: Path, turns: dict[int, str], texts: dict[str, str], being_removed: set[str], is_last: bool) -> None:
    database = Database.open(data_dir)
    try:
        assert database.notice == "" and database.faults() == []
        conversations, documents = ConversationStore(database), DocumentStore(database)
        conversations.recover()
        found = {}
        for conversation_id in conversations.last_used():
            conversation = conversations.find(conversation_id)
            for turn in conversation.turns:
                found[turn.turn_id] = turn
                assert turn.state in ("finished", "interrupted")
        newest = dict(list(turns.items())[-3:])
        for turn_id, text in turns.items() if is_last else newest.items():
            assert found[turn_id].answer == f"answer {text}" and found[turn_id].report is not None
            assert found[turn_id].token_ids == tuple(range(100)) and found[turn_id].state == "finished"
            assert len(conversations.summaries(f"answer {text}")) == 1
        for document_id, text in texts.items():
            entry = documents.entry(document_id)
            if document_id in being_removed and entry is None:
                continue
            assert entry.state == "read" and len(documents.pages(document_id)) == 20
            if document_id in list(texts)[-2:]:
                assert {hit.document_id for hit in documents.search(f"page {text}")} == {document_id}
        for entry in documents.entries():
            assert entry.state == "reading" or len(documents.pages(entry.document_id)) == 20
    finally:
        database.close()
