"""What a browser draws and a page does not spell: bullets and numbers of lists, and texts in the place of pictures."""

import re
from itertools import islice

from bs4 import NavigableString, Tag
from bs4.element import PreformattedString

from app.library.formats.line_forms import BULLET, letters, roman

_NO_BULLETS = re.compile(r"list-style(-type)?\s*:[^;]*none", re.IGNORECASE)
_LISTS = ("ol", "ul", "menu")
# A list entry's first words are looked for so far into it.
_LOOKED_AT = 50
# What is said of pictures that show nothing: names of files, and what every page has.
_EMPTY_WORDS = re.compile(r"\S+\.(png|jpe?g|gif|svg|webp)|image|img|picture|photo|logo|icon|cover", re.IGNORECASE)
_NUMBERS = {
    "a": letters, "A": lambda number: letters(number).upper(), "i": roman, "I": lambda number: roman(number).upper()
}  # fmt: skip


class Verbatim(NavigableString):
    """Text that was put into a page here, and is taken out of it as it is."""


def write_out_items(tree: Tag) -> None:
    """Put bullets and numbers in front of the entries of lists."""
    for parent, items in _lists(tree):
        if _NO_BULLETS.search(str(parent.get("style", ""))):
            continue
        if parent.name != "ol":
            for item in items:
                _put_before_words(item, BULLET)
            continue
        step = -1 if "reversed" in parent.attrs else 1
        number = _integer(parent.get("start"), len(items) if step < 0 else 1)
        write = _NUMBERS.get(str(parent.get("type", "1")), str)
        for item in items:
            number = _integer(item.get("value"), number)
            _put_before_words(item, f"{write(number)}.")
            number += step


def _lists(tree: Tag) -> list[tuple[Tag, list[Tag]]]:
    """Each list and its entries; those whose end is not marked are in each other, as they are parsed here."""
    found: dict[int, tuple[Tag, list[Tag]]] = {}
    stack = [(tree, tree)]
    while stack:
        tag, parent = stack.pop()
        if tag.name in _LISTS:
            parent = tag
            found[id(tag)] = (tag, [])
        elif tag.name == "li" and id(parent) in found:
            found[id(parent)][1].append(tag)
        stack.extend((child, parent) for child in reversed(tag.contents) if isinstance(child, Tag))
    return list(found.values())


def _put_before_words(item: Tag, mark: str) -> None:
    for node in islice(item.descendants, _LOOKED_AT):
        is_text = isinstance(node, NavigableString) and not isinstance(node, PreformattedString)
        if is_text and node.strip():
            node.insert_before(Verbatim(f"{mark} "))
            return


def _integer(value: object, otherwise: int) -> int:
    try:
        return int(str(value))
    except ValueError:
        return otherwise


def take_apart_cells(tree: Tag) -> None:
    """Put rows and cells whose ends are not marked beside each other: they are parsed as being in each other."""
    for names in (("tr",), ("td", "th")):
        for tag in tree.find_all(names):
            around = tag.find_parent((*names, "table"))
            if around is not None and around.name != "table":
                around.insert_after(tag)


def write_out_pictures(tree: Tag) -> None:
    """Put what a page says of its pictures in their places, if it has words beside them."""
    pictures = tree.find_all("img", alt=True)
    if not pictures or not any(any(map(str.isalnum, text)) for text in tree.stripped_strings):
        return
    for picture in pictures:
        words = " ".join(str(picture["alt"]).split())
        figure = picture.find_parent("figure")
        is_caption = figure is not None and words in " ".join(figure.get_text().split())
        if words and not is_caption and not _EMPTY_WORDS.fullmatch(words):
            # A single letter is the first one of a word, drawn.
            picture.insert_after(NavigableString(words if len(words) == 1 else f" {words} "))
