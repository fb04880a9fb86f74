"""A process that adds documents to a library, and removes some, until it is killed; says on stdout what was done.

It forks a child for each line on stdin, so that each costs no start of an interpreter.
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path

import sqlalchemy.dialects.sqlite  # noqa: F401  before the first child, not in each

from app.library.library import Library
from app.store.database import Database


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            add_for_ever(Path(sys.argv[1]), Path(sys.argv[2]), int(line))
        say("child", child)
        os.waitpid(child, 0)
        say("gone")


def say(*words: object) -> None:
    # One write a line: a killed child leaves no half one.
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def add_for_ever(data_dir: Path, sources: Path, seed: int) -> None:
    library = Library(data_dir, Database.open(data_dir))
    library.start()
    for number in itertools.count():
        path = sources / f"{seed}-{number}.txt"
        path.write_text(f"Document {number} of round {seed}. " + "A harbour and its light. " * 400)
        entry = library.add(path, take=number % 2 == 1)
        say("added", entry.document_id)
        if number % 4 == 0:
            library.wait(entry.document_id)
        if number % 3 == 2:
            say("removing", entry.document_id)
            library.remove(entry.document_id)
            say("removed", entry.document_id)


if __name__ == "__main__":
    main()
