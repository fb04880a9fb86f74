"""The words of a text as evidence is compared by: stems, numbers and names, in any script.

Two spellings of one word are one term: case, accents, vowel signs of Arabic and Hebrew, English endings. Scripts
without spaces are cut into pairs of characters. Numbers are terms of their own, in figures or in English words. Knows
nothing of documents.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

# Marks belong to the word that they stand in; Python's \w leaves out those of Indic scripts, Thai, Arabic and Hebrew.
_MARKS = (
    "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff\u0e31-\u0e4e\u0eb1-\u0ece"
)
_WORD = re.compile(rf"[^\W\d_][\w{_MARKS}]*|\d+(?:[.,٫٬]\d+)*", re.UNICODE)
_DROPPED_MARKS = re.compile("[\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670]")
# Han, kana, hangul is spaced; Thai, Lao, Burmese and Khmer are not.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff"
_UNSPACED_RUN = re.compile(rf"[{_UNSPACED}]+|[^{_UNSPACED}]+")
_IS_UNSPACED = re.compile(rf"[{_UNSPACED}]")
_GROUPED = re.compile(r"\d{1,3}(?:[.,٬]\d{3})+")

_NUMBER_WORDS = {
    word: str(number)
    for number, word in enumerate(
        "zero _ two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
        "eighteen nineteen twenty".split()
    )
    if word != "_"
} | {
    word: str(10 * number)
    for number, word in enumerate("thirty forty fifty sixty seventy eighty ninety hundred".split(), start=3)
}
_NUMBER_WORDS |= {"thousand": "1000", "million": "1000000", "dozen": "12"}

# Words that a sentence has whatever it says. Of other languages' the weight by rarity takes care.
STOP_WORDS = frozenset(
    "a about above after again against ain all also although am among an and another any are aren as at be "
    "because been before being below beside besides between both but by can cannot could couldn did didn do does "
    "doesn doing don done down during each either else ever every few for from further get gets got had hadn has "
    "hasn have haven having he hence her here hers herself him himself his how however i if in into is isn it its "
    "itself just ll let may me might mightn more most much must mustn my myself needn neither no nor not now of "
    "off on once one only onto or other our ours ourselves out over own per quite rather re same shall shan she "
    "should shouldn since so some such than that the their theirs them themselves then there these they this "
    "those though through thus to too under until up upon us ve very was wasn we were weren what when where "
    "whereas whether which while who whom whose why will with within without won would wouldn yet you your yours "
    "yourself yourselves call called name named".split()
)

# What an answer says of itself or of its source, not of what is told there; and a plain yes or no.
_TALK = frozenset(
    "answer answers question questions document documents text texts passage passages page pages book author mention "
    "mentions mentioned mentioning state states stated say says said tell tells told know known information detail "
    "details provide provides provided given explicitly specify specified specifies clear unclear sorry unable help "
    "according based context contain contains yes no ja nein oui non si sí sim não да нет 是 否 不 はい いいえ".split()
)


@dataclass(frozen=True, slots=True)
class Term:
    """A word of a text.

    Args:
        key: what is compared.
        start, end: where it stands in the text.
        kind: "word", "number", or "name" for one with a capital that does not begin its sentence.
        is_content: False for words that every sentence may have.
    """

    key: str
    start: int
    end: int
    kind: str
    is_content: bool


def terms(text: str) -> list[Term]:
    """The terms of a text, in order; of pairs of characters, each with the place of its own."""
    found: list[Term] = []
    begins = True
    last_end = 0
    for match in _WORD.finditer(text):
        begins = begins or not found or any(mark in '.!?。！？:;"“”‘«\n' for mark in text[last_end : match.start()])
        word, start, last_end = match.group(), match.start(), match.end()
        if word[0].isdecimal():
            found.append(Term(_number(word), start, last_end, "number", True))
        elif _IS_UNSPACED.search(word):
            found.extend(_pairs(word, start))
        else:
            key, is_number, is_content = _normalised(word)
            if key:
                is_name = not begins and word[0].isupper() and len(word) > 1 and is_content
                kind = "number" if is_number else "name" if is_name else "word"
                found.append(Term(key, start, last_end, kind, is_content))
        begins = False
    return found


def keys(text: str) -> list[str]:
    """The keys of a text's content terms, in order: for an index."""
    found: list[str] = []
    for word in _WORD.findall(text):
        if word[0].isdecimal():
            found.append(_number(word))
        elif _IS_UNSPACED.search(word):
            found.extend(term.key for term in _pairs(word, 0))
        else:
            key, _, is_content = _normalised(word)
            if key and is_content:
                found.append(key)
    return found


def is_talk(key: str) -> bool:
    """Whether a term speaks of the answer or its source, not of what is told."""
    return key in _talk_stems()


def _number(word: str) -> str:
    figures = "".join(str(unicodedata.decimal(one)) if one.isdecimal() else one for one in word)
    if _GROUPED.fullmatch(figures):
        return re.sub(r"\D", "", figures)
    return figures.replace(",", ".").replace("٫", ".")


@lru_cache(maxsize=1 << 16)
def _normalised(word: str) -> tuple[str, bool, bool]:
    """The key of a word of a spaced script ("" if it is none), whether it is a number, whether it has content."""
    plain = _DROPPED_MARKS.sub("", unicodedata.normalize("NFKD", word)).casefold()
    if plain in _NUMBER_WORDS:
        return _NUMBER_WORDS[plain], True, True
    if len(plain) < 2:
        return "", False, False
    return _stemmer().stemWord(plain), False, plain not in STOP_WORDS


def _pairs(word: str, start: int) -> list[Term]:
    """Terms of a run that holds characters of a script without spaces: pairs, or the one character that it is."""
    found = []
    for match in _UNSPACED_RUN.finditer(word):
        run, place = match.group(), start + match.start()
        if not _IS_UNSPACED.match(run):
            key, is_number, is_content = _normalised(run)
            if key:
                found.append(Term(key, place, place + len(run), "number" if is_number else "word", is_content))
        elif len(run) == 1:
            found.append(Term(run, place, place + 1, "word", True))
        else:
            found += [
                Term(run[index : index + 2], place + index, place + index + 2, "word", True)
                for index in range(len(run) - 1)
            ]
    return found


@lru_cache(maxsize=1)
def _stemmer():
    # On first use: the process that reads documents needs none.
    import Stemmer

    return Stemmer.Stemmer("english", 0)


@lru_cache(maxsize=1)
def _talk_stems() -> frozenset[str]:
    return frozenset(_normalised(word)[0] for word in _TALK) | _TALK
