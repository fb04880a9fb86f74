"""Texts from anywhere as they can be kept, and names of them as people can read them.

What a file is called may hold anything, and so may a question of which a title is made.
"""

from __future__ import annotations

import re
import unicodedata

_MOST_NAME_CHARACTERS = 200
_MOST_TITLE_CHARACTERS = 80
# Control characters, those that turn the direction of the text after them, and halves of characters.
_DISTURBING = ("Cc", "Cf", "Cs", "Zl", "Zp")
# These format characters belong to words and to emoji: the joiners.
_KEPT = "\u200c\u200d"


def storable(text: str) -> str:
    """A text without halves of characters, which cannot be written down: "?" stands for each."""
    return text.encode("utf-8", "replace").decode("utf-8")


def one_line(text: str, most_characters: int = _MOST_NAME_CHARACTERS) -> str:
    """A name on one line, without characters that are not seen, cut to `most_characters`; "" if nothing remains."""
    # What is far beyond the end need not be looked at.
    text = text[: 20 * most_characters]
    shown = "".join(
        character if character in _KEPT or unicodedata.category(character) not in _DISTURBING else " "
        for character in text
    )
    shown = " ".join(shown.split())
    return shown if len(shown) <= most_characters else f"{shown[: most_characters - 1].rstrip()}…"


def file_name_of(name: str) -> str:
    """A file's name without its folder, on one line; of a long one the beginning and the ending are kept."""
    # Browsers on Windows have sent whole paths.
    name = re.split(r"[/\\]", name)[-1]
    ending = re.search(r"\.[A-Za-z0-9]{1,10}\Z", name)
    suffix = ending.group() if ending else ""
    stem = one_line(name[: len(name) - len(suffix)], _MOST_NAME_CHARACTERS - len(suffix))
    return f"{stem or 'document'}{suffix}"


def title_of(question: str) -> str:
    """A conversation's title, made from its first question: its beginning, cut between two words."""
    title = one_line(question, most_characters=20 * _MOST_TITLE_CHARACTERS)
    if len(title) <= _MOST_TITLE_CHARACTERS:
        return title
    cut = title[: _MOST_TITLE_CHARACTERS - 1]
    between = re.match(r"(.{40,})\s", cut)
    return f"{(between.group(1) if between else cut).rstrip()}…"
