"""A process that writes conversations until it is killed, and says on stdout what it has been told is kept.

It forks a child for each line on stdin, so that each costs no start of an interpreter: the child writes, the parent
waits for it to be killed. What a child has said, and no more, its killer may hold it to.
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path

import sqlalchemy.dialects.sqlite  # noqa: F401  before the first child, not in each

from app.library import Document, DocumentPage
from app.store.conversation_store import ConversationStore
from app.store.database import Database
from app.store.document_store import DocumentStore


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            write_for_ever(Path(sys.argv[1]), int(line))
        say("child", child)
        os.waitpid(child, 0)
        say("gone")


def say(*words: object) -> None:
    # One write a line: a killed child leaves no half one.
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def write_for_ever(data_dir: Path, seed: int) -> None:
    database = Database.open(data_dir)
    conversations, documents = ConversationStore(database), DocumentStore(database)
    conversations.recover()
    conversation_id, parent = conversations.create(), None
    for number in itertools.count():
        text = f"round{seed}turn{number}"
        turn_id = conversations.begin_turn(conversation_id, parent, f"question {text}")
        for length in range(1, 4):
            conversations.save_partial(turn_id, f"partial {text} " + "word " * 50 * length, range(length))
        conversations.finish_turn(turn_id, f"answer {text}", {"number": number}, range(100))
        say("turn", turn_id, text)
        parent = turn_id
        document_id = f"{seed:016d}{number:016d}"
        documents.add(document_id, f"{text}.txt", f"{text}.txt", ".txt", 1)
        pages = tuple(
            DocumentPage(index, str(index), f"page {index} of {text} " + "word " * 400) for index in range(20)
        )
        documents.set_read(document_id, Document(document_id, text, Path(text), pages))
        say("document", document_id, text)
        if number % 2:
            documents.set_state(document_id, "removing")
            documents.remove(document_id)
            say("removed", document_id)


if __name__ == "__main__":
    main()
