"""Which language a text is in, guessed from its script and its function words.

Cheap, and only for languages whose question words can be told apart; says nothing rather than guess among equals.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from app.library import Document, QuestionWords

_WORD = re.compile(r"[^\W\d_]+")
_FUNCTION_WORDS = {
    "English": "the a an of and to in is are was were what who where when why how which does did do has have had he "
    "she it they this that with for on at by from be not his her their there",
    "German": "der die das den dem des ein eine einen einem einer und zu ist sind war waren was wer wo wann warum wie "
    "welche welcher welches hat haben er sie es mit für auf bei von nicht sein ihr gibt dort wurde kann man",
    "French": "le la les un une des du de et à est sont était que qui où quand pourquoi comment quel quelle quels "
    "quelles a ont il elle ils ce cette avec pour sur par ne pas son sa ses dans combien au aux",
    "Spanish": "el la los las un una de del y a es son era qué quién dónde cuándo cómo cuál cuáles quiénes ha han "
    "tiene con para por en no su sus se que cuánto cuántos está hay al",
    "Italian": "il lo la gli le un uno una di del della dei e è sono era che chi dove quando perché come quale quali "
    "ha hanno con per su da non suo sua nel nella quanto quanti c cosa al alla",
    "Portuguese": "o a os as um uma de do da dos das e é são era que quem onde quando como qual quais tem têm com "
    "para por em no na não seu sua se quanto quantos foi há ao",
    "Dutch": "de het een van en is zijn was waren wat wie waar wanneer waarom hoe welke heeft hebben hij zij met voor "
    "op bij niet zijn haar er dat dit door werd kan naar",
}
_BY_WORD: dict[str, list[str]] = {}
for _language, _words in _FUNCTION_WORDS.items():
    for _word in _words.split():
        _BY_WORD.setdefault(_word, []).append(_language)
# The first that holds a letter decides: Japanese has Chinese characters, too.
_SCRIPTS = (
    ("Japanese", re.compile(r"[\u3040-\u30ff]")),
    ("Korean", re.compile(r"[\uac00-\ud7af]")),
    ("Chinese", re.compile(r"[\u3400-\u9fff]")),
    ("Russian", re.compile(r"[\u0400-\u04ff]")),
    ("Greek", re.compile(r"[\u0370-\u03ff]")),
    ("Hebrew", re.compile(r"[\u0590-\u05ff]")),
    ("Arabic", re.compile(r"[\u0600-\u06ff]")),
    ("Hindi", re.compile(r"[\u0900-\u097f]")),
)
# Of a document, so many characters at so many places are looked at.
_SAMPLES = 16
_SAMPLE_CHARACTERS = 1000


def guess_language(text: str, preferred: str = "") -> str:
    """The language of a text by its English name, "" if it cannot be told; `preferred` is taken among equals."""
    letters = sum(map(str.isalpha, text))
    for language, script in _SCRIPTS:
        if letters and len(script.findall(text)) > 0.2 * letters:
            return language
    counts = Counter(language for word in _WORD.findall(text.casefold()) for language in _BY_WORD.get(word, ()))
    if not counts:
        return ""
    most = max(counts.values())
    best = [language for language, count in counts.items() if count == most]
    if preferred in best:
        return preferred
    return best[0] if len(best) == 1 else ""


def function_word_share(text: str, language: str) -> float:
    """How many of a text's words are function words of a language, 0 to 1; tells how sure a guess is."""
    words = _WORD.findall(text.casefold())
    return sum(language in _BY_WORD.get(word, ()) for word in words) / len(words) if words else 0.0


def documents_language(documents: Sequence[Document]) -> str:
    """The language of most of what documents say; "" if it cannot be told."""
    pages = [page.text for document in documents for page in document.document_pages if page.text.strip()]
    step = max(1, len(pages) // _SAMPLES)
    return guess_language(" ".join(text[:_SAMPLE_CHARACTERS] for text in pages[::step]))


def asks_in_another_language(question: str, words: QuestionWords, language: str) -> bool:
    """Whether a search for a question's words misses because these are in another language than the text.

    Args:
        question: as asked.
        words: which of its words occur in the text.
        language: of the text; nothing is known without it.
    """
    if not language or not words.missing or len(words.found) >= len(words.missing):
        return False
    of_question = guess_language(question, preferred=language)
    # Where its own language cannot be told, it must at least have nothing of the text's.
    return of_question != language if of_question else not words.found
