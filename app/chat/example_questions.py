"""Questions that a reader may begin with, made from a document's own headings and first lines.

Nothing in them is invented: each asks about the whole, about a heading that stands in the text, or what a sentence of
it means, in the language of the document. Where that is not known for sure there are none. Knows nothing of models.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.chat.answers.language_guess import function_word_share, guess_language
from app.library import Document

MOST_QUESTIONS = 3
# Of a document: headings further on are not looked for, and a text's language shows on its first pages.
_PAGES = 60
_PAGE_CHARACTERS = 6000
_LANGUAGE_CHARACTERS = 12_000
# Of a text's words, these are function words of its language; of another language's text hardly one in ten is.
_LEAST_FUNCTION_WORDS = 0.17
_LEAST_WORDS = 12

_HEADING_CHARACTERS = (3, 64)
_MOST_HEADING_WORDS = 9
_PARAGRAPH_CHARACTERS = 60
_SENTENCE_WORDS = (5, 26)
_SENTENCE_CHARACTERS = 130
# A line on so many pages is a header or a footer.
_RUNNING_PAGES = 3
_MOST_HEADINGS = 40

_NUMBER = r"(?:\d{1,3}(?:\.\d{1,3}){0,3}\.?|[IVXLC]{1,7}\.|[A-Z]\.\d{1,2}\.?)"
_NUMBERED = re.compile(rf"{_NUMBER}\s+(?P<title>\S.*)")
_MARKDOWN = re.compile(r"#{1,4}\s+(?P<title>\S.*?)\s*#*")
_CHAPTER = re.compile(
    r"(?:chapter|kapitel|chapitre|capítulo|capitulo|capitolo|hoofdstuk)\s+(?:\d{1,3}|[ivxlc]{1,7})\.?", re.IGNORECASE
)
_ENDS_SENTENCE = re.compile(r"[.!?:;…][\"'”’»)\]]*$")
_SENTENCE = re.compile(r"[^.!?]+[.!?](?=[\"'”’»)]*(?:\s|$))")
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
# What opens a book without being about it, and what no heading is.
_NO_SUBJECT = re.compile(
    r"https?:|www\.|@|©|copyright|\bisbn\b|rights reserved|licen[cs]e|project gutenberg|\.{3}|…|\||[<>{}=\\$`_*]"
    r"|\b(?:fig(?:ure)?|table|tab|abb(?:ildung)?|tabelle)\b\.? ?\d",
    re.IGNORECASE,
)
_NO_HEADINGS = frozenset(
    "contents|table of contents|index|references|bibliography|abstract|acknowledgements|acknowledgments|appendix|"
    "glossary|notes|cover|title page|preface|foreword|copyright|list of figures|list of tables|introduction|overview|"
    "version|einleitung|einführung|überblick|introducción|introduzione|introdução|inleiding|inhalt|"
    "inhaltsverzeichnis|literatur|literaturverzeichnis|anhang|vorwort|danksagung|table des matières|sommaire|"
    "bibliographie|annexe|préface|remerciements|índice|bibliografía|referencias|anexo|prólogo|agradecimientos|indice|"
    "bibliografia|appendice|prefazione|ringraziamenti|referências|anexos|prefácio|agradecimentos|inhoud|"
    "inhoudsopgave|literatuur|bijlage|voorwoord|dankwoord|agenda|thank you|questions|the end|end".split("|")
)


@dataclass(frozen=True)
class _Wording:
    """Questions in one language; "{}" is the quotation that fits them, in its own marks."""

    whole: str
    about: str
    summary: str
    meaning: str
    marks: str


_WORDINGS = {
    "English": _Wording(
        "What is this document about?", "What is {} about?", "Sum up {} in three sentences.", "What is meant by {}?",
        "“”",
    ),
    "German": _Wording(
        "Worum geht es in diesem Dokument?", "Worum geht es in {}?", "Fasse {} in drei Sätzen zusammen.",
        "Was ist mit {} gemeint?", "„“",
    ),
    "French": _Wording(
        "De quoi parle ce document ?", "De quoi parle {} ?", "Résume {} en trois phrases.", "Que veut dire {} ?", "«»"
    ),
    "Spanish": _Wording(
        "¿De qué trata este documento?", "¿De qué trata {}?", "Resume {} en tres frases.", "¿Qué significa {}?", "«»"
    ),
    "Italian": _Wording(
        "Di che cosa parla questo documento?", "Di che cosa parla {}?", "Riassumi {} in tre frasi.",
        "Che cosa significa {}?", "«»",
    ),
    "Portuguese": _Wording(
        "De que trata este documento?", "De que trata {}?", "Resume {} em três frases.", "O que significa {}?", "«»"
    ),
    "Dutch": _Wording(
        "Waar gaat dit document over?", "Waar gaat {} over?", "Vat {} in drie zinnen samen.",
        "Wat wordt bedoeld met {}?", "“”",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class _Heading:
    """A heading without its number; a chapter that has only a number is not quoted."""

    title: str
    is_chapter: bool = False


def example_questions(documents: Sequence[Document]) -> tuple[str, ...]:
    """Questions about documents, at most `MOST_QUESTIONS`; of several documents each gets its turn.

    Args:
        documents: those of a conversation, in its order.

    Returns:
        None for documents whose language has no wording here, or cannot be told.
    """
    each = [_questions(document, is_alone=len(documents) == 1) for document in documents[:MOST_QUESTIONS]]
    found: list[str] = []
    for place in range(MOST_QUESTIONS):
        for questions in each:
            if place < len(questions) and questions[place] not in found:
                found.append(questions[place])
    return tuple(found[:MOST_QUESTIONS])


def _questions(document: Document, is_alone: bool) -> list[str]:
    wording = _WORDINGS.get(_language(document))
    if wording is None:
        return []
    headings = _headings(document)
    questions = [wording.whole] if is_alone else []
    for number, heading in enumerate(_spread(headings, MOST_QUESTIONS - len(questions))):
        name = heading.title if heading.is_chapter else _quoted(heading.title, wording)
        questions.append((wording.summary if number % 2 else wording.about).format(name))
    if len(questions) < MOST_QUESTIONS and (sentence := _first_sentence(document)):
        questions.append(wording.meaning.format(_quoted(sentence, wording)))
    return questions


def _quoted(text: str, wording: _Wording) -> str:
    opening, closing = wording.marks
    blank = "\u00a0" if wording is _WORDINGS["French"] else ""
    return f"{opening}{blank}{text.strip('“”„«»').replace('“', '‘').replace('”', '’')}{blank}{closing}"


def _spread(headings: Sequence[_Heading], count: int) -> list[_Heading]:
    """The first, and others from further on: those with a name, or else one chapter that has only a number."""
    named = [heading for heading in headings if not heading.is_chapter] or list(headings[:1])
    count = min(count, len(named))
    return [named[number * len(named) // count] for number in range(count)]


def _language(document: Document) -> str:
    """The language of a text, "" if it is not sure."""
    text, pages = "", [page.text for page in document.document_pages if page.text.strip()]
    for page in pages[:: max(1, len(pages) // 12)]:
        text = f"{text} {page[:1500]}"
        if len(text) > _LANGUAGE_CHARACTERS:
            break
    if len(_WORD.findall(text)) < _LEAST_WORDS:
        return ""
    language = guess_language(text)
    return language if function_word_share(text, language) >= _LEAST_FUNCTION_WORDS else ""


def _headings(document: Document) -> list[_Heading]:
    """In order, without repetition, and without what opens and closes every book."""
    labels = [page.page_label for page in document.document_pages]
    from_labels = list(_from_lines(label for label in labels if not _is_page_number(label)))
    if len(from_labels) > len(set(labels)) / 2:
        # Chapters of an EPUB, sections of a text, slides.
        return from_labels[:_MOST_HEADINGS]
    pages = document.document_pages[:_PAGES]
    texts = [page.text[:_PAGE_CHARACTERS].splitlines() for page in pages]
    on_pages = Counter(line for lines in texts for line in {line.strip() for line in lines})
    candidates = (
        line.strip()
        for lines in texts
        for line in _heading_lines(lines)
        if on_pages[line.strip()] < _RUNNING_PAGES
    )  # fmt: skip
    return list(_from_lines(candidates))[:_MOST_HEADINGS]


def _is_page_number(label: str) -> bool:
    return sum(map(str.isalpha, label)) < 3 or bool(re.fullmatch(r"[ivxlcIVXLC]+|\w-?\d+", label))


def _heading_lines(lines: Sequence[str]) -> Iterator[str]:
    """Lines that stand alone before a paragraph; a paragraph is one line, as documents are read here."""
    texts = [line for line in lines if line.strip()]
    for before, line, after in zip(["", *texts], texts, texts[1:], strict=False):
        # What another short line follows is a list, a title page, a table of contents.
        follows = len(after) >= _PARAGRAPH_CHARACTERS or bool(_NUMBERED.fullmatch(after.strip()))
        ended = not before or bool(_ENDS_SENTENCE.search(before.strip())) or bool(_NUMBERED.fullmatch(before.strip()))
        if follows and (ended or _MARKDOWN.fullmatch(line.strip())):
            yield line


def _from_lines(lines: Iterator[str]) -> Iterator[_Heading]:
    seen = set()
    for line in lines:
        heading = _heading(line)
        if heading is not None and heading.title.casefold() not in seen:
            seen.add(heading.title.casefold())
            yield heading


def _heading(line: str) -> _Heading | None:
    """The heading that a line is, if it can be one."""
    line = " ".join(line.split())
    if _CHAPTER.fullmatch(line):
        return _Heading(line.rstrip("."), is_chapter=True)
    match = _MARKDOWN.fullmatch(line) or _NUMBERED.fullmatch(line)
    title = match["title"] if match else line
    if (match := _NUMBERED.fullmatch(title)) is not None:
        title = match["title"]
    title = re.sub(rf"^{_CHAPTER.pattern}\s*[-–—:.]?\s*", "", title, flags=re.IGNORECASE) or title
    shortest, longest = _HEADING_CHARACTERS
    words = _WORD.findall(title)
    is_named = shortest <= len(title) <= longest and 0 < len(words) <= _MOST_HEADING_WORDS
    if not is_named or _NO_SUBJECT.search(title) or title.casefold().strip(" .:") in _NO_HEADINGS:
        return None
    # A line of a dialogue ends so, and one of a table of contents; nobody asks about a question.
    if not title[0].isupper() or re.search(r"[.,;:?!\d]$", title):
        return None
    # Numbers, initials and codes say nothing to ask about.
    letters = sum(map(str.isalpha, title))
    if letters < 0.7 * len(title.replace(" ", "")) or max(map(len, words)) < 3:
        return None
    return _Heading(title.title() if title.isupper() and len(title) > 5 else title)


def _first_sentence(document: Document) -> str:
    """The first whole sentence of a paragraph; "" if there is none among the first pages."""
    for page in document.document_pages[:4]:
        for line in page.text[:_PAGE_CHARACTERS].splitlines():
            line = " ".join(line.split())
            if len(line) < _PARAGRAPH_CHARACTERS or _NO_SUBJECT.search(line[: 2 * _SENTENCE_CHARACTERS]):
                continue
            match = _SENTENCE.match(line)
            sentence = match[0].strip() if match else ""
            words, (fewest, most) = len(_WORD.findall(sentence)), _SENTENCE_WORDS
            is_plain = sentence[:1].isupper() and not re.search(r"\d{2}|[\"“”„«»()\[\]]", sentence)
            if fewest <= words <= most and len(sentence) <= _SENTENCE_CHARACTERS and is_plain:
                return sentence.rstrip(".")
    return ""
