"""Retrieval: the right pages, within the limit, in order, offline."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from app.library import (
    QuestionWords,
    overview_passages,
    question_words,
    retrieve_more_passages,
    retrieve_passages,
)
from app.library import chunk_index as index_module

pytest.importorskip("llama_index.retrievers.bm25")

# The book's own questions: each is answered on one page, in words that are not all in the question.
QUESTIONS = [
    ("What was the seamstress embroidering on the satin gown?", "4", "passion-flowers"),
    ("From which country were the sapphires of the Prince's eyes brought?", "8", "India"),
    ("What had the little match-girl let fall in the gutter?", "9", "matches"),
    ("Which two precious things did the Angel bring to God?", "13", "the leaden heart and the dead bird"),
    ("For how many years had the Giant stayed with his friend the Cornish ogre?", "14", "seven years"),
    ("What bird was singing outside the Giant's window when he lay awake?", "16", "a little linnet"),
]


def count_words(text: str) -> int:
    return len(text.split())


@pytest.mark.parametrize(("question", "page_label", "answer"), QUESTIONS)
def test_the_page_with_the_answer_is_found(sample_book, question, page_label, answer):
    found = retrieve_passages([sample_book], question, token_limit=500, count_tokens=count_words)
    assert any(passage.page_label == page_label and answer in passage.text for passage in found)
    assert sum(count_words(passage.text) for passage in found) <= 500


def test_passages_are_in_order_and_cite_their_place(sample_book):
    found = retrieve_passages([sample_book], "swallow Egypt winter Prince Giant garden", 2000, count_words)
    places = [(passage.page_index, passage.start_char, passage.end_char) for passage in found]
    assert places == sorted(places) and len(places) > 5
    for (page, _, end), (next_page, next_start, _) in itertools.pairwise(places):
        assert page < next_page or end < next_start
    for passage in found:
        page = sample_book.document_pages[passage.page_index]
        assert passage.text == page.text[passage.start_char : passage.end_char]
        assert passage.page_label == page.page_label and passage.document is sample_book


def test_neighbouring_chunks_are_joined(sample_book):
    found = retrieve_passages([sample_book], "the Giant and the children in the garden", 100_000, count_words)
    pages = [passage.page_index for passage in found]
    # With room for everything, what stands next to a hit comes along, and no page is in two pieces.
    assert len(pages) == len(set(pages))
    giant = sample_book.document_pages[16]
    assert next(passage for passage in found if passage.page_index == 16).text == giant.text


@pytest.mark.parametrize("token_limit", [1, 7, 60, 300, 1500])
def test_limit_holds_for_the_text_that_is_returned(sample_book, token_limit):
    # Counts in characters, as a tokenizer would that knows no words.
    found = retrieve_passages([sample_book], "Who built a wall around the garden?", token_limit, len)
    assert sum(len(passage.text) for passage in found) <= token_limit
    assert found or token_limit < 10


def test_no_room_gives_nothing(sample_book):
    assert retrieve_passages([sample_book], "anything", 0, count_words) == []
    assert retrieve_passages([], "anything", 100, count_words) == []


@pytest.mark.parametrize("question", ["", "   ", "the of and", "xylophone quokka"])
def test_question_without_hits_gets_the_beginnings_evenly(make_document, question):
    page = "Plain words stand here in a row, and more of them follow. " * 60
    documents = [make_document(page, page, name="a.txt"), make_document(page, page, name="b.txt")]
    found = retrieve_passages(documents, question, 560, count_words)
    words = {document.name: 0 for document in documents}
    for passage in found:
        words[passage.document.name] += count_words(passage.text)
    assert words["a.txt"] == words["b.txt"] > 200
    assert [(passage.document.name, passage.start_char) for passage in found if passage.page_index == 0] == [
        ("a.txt", 0),
        ("b.txt", 0),
    ]


def test_what_is_left_of_the_limit_goes_to_what_stands_around_the_hits(make_document):
    pages = [f"Plain words of page {number} stand here in a row. " * 60 for number in range(30)]
    pages[17] += "The parrot sleeps."
    document = make_document(*pages)
    found = retrieve_passages([document], "parrot", 2500, count_words)
    assert 2300 < sum(count_words(passage.text) for passage in found) <= 2500
    assert [passage.page_index for passage in found] == [15, 16, 17, 18, 19]


def test_a_further_question_gets_only_what_does_not_stand_already(sample_book):
    first = retrieve_passages([sample_book], QUESTIONS[0][0], 400, count_words)
    assert retrieve_more_passages([sample_book], QUESTIONS[0][0], 300, count_words, first) == []
    assert retrieve_more_passages([sample_book], "xylophone quokka", 300, count_words, first) == []
    second = retrieve_more_passages([sample_book], QUESTIONS[3][0], 300, count_words, first)
    assert any(QUESTIONS[3][2] in passage.text for passage in second)
    assert 0 < sum(count_words(passage.text) for passage in second) <= 300
    places = sorted((one.page_index, one.start_char, one.end_char) for one in [*first, *second])
    for (page, _, end), (next_page, next_start, _) in itertools.pairwise(places):
        assert page < next_page or end <= next_start


def test_an_overview_is_the_beginning_the_contents_and_an_even_spread(make_document):
    contents = "\n".join(f"Chapter {number} ..... {number * 7}" for number in range(1, 30))
    pages = ["The Title Page", "Plain words of a preface. " * 200, contents]
    pages += [f"Plain words of page {number} stand here in a row. " * 40 for number in range(60)]
    document, other = make_document(*pages), make_document("Quite another text. " * 400, name="b.txt")
    found = overview_passages([document], 2500, count_words)
    assert sum(count_words(passage.text) for passage in found) <= 2500
    indexes = [passage.page_index for passage in found]
    assert indexes == sorted(indexes) and {0, 2, len(pages) - 1} <= set(indexes)
    spread = sorted({index for index in indexes if index > 2})
    assert len(spread) > 6 and max(b - a for a, b in itertools.pairwise(spread)) < 15
    assert {passage.document.name for passage in overview_passages([document, other], 2500, count_words)} == {
        document.name,
        "b.txt",
    }
    assert overview_passages([make_document("." * 200_000, name="dots.txt")], 500, count_words)
    # What stands is not repeated.
    more = overview_passages([document], 2500, count_words, found)
    assert not {(one.page_index, one.start_char) for one in more} & {(one.page_index, one.start_char) for one in found}


def test_text_that_repeats_itself_is_cut_to_its_end(make_document):
    document = make_document("Plain words stand here in a row, and more of them follow. " * 200)
    (found,) = retrieve_passages([document], "words", 100_000, count_words)
    assert found.text == document.document_pages[0].text.strip()


@pytest.mark.parametrize(
    ("question", "found", "missing"),
    [
        ("Which PARROTS sleep in Peru? Parrots!", ("parrots", "sleep"), ("peru",)),
        ("Wo schläft der Papagei?", (), ("wo", "schläft", "der", "papagei")),
        ("the of and", (), ()),
        ("", (), ()),
        ("…", (), ()),
    ],
)
def test_the_questions_words_are_told_by_whether_they_occur(make_document, question, found, missing):
    documents = [make_document("Nothing of note is here."), make_document("The parrot sleeps.", name="b.txt")]
    assert question_words(documents, question) == QuestionWords(found, missing)
    without_words = question_words([make_document("…")], question)
    assert without_words.found == () and set(without_words.missing) == {*found, *missing}


def test_all_documents_compete(make_document, sample_book):
    other = make_document("The harbour master keeps a parrot called Bosun.", name="harbour.txt")
    question = "What is the name of the harbour master's parrot?"
    found = retrieve_passages([sample_book, other], question, 300, count_words)
    assert found[-1].document is other and "Bosun" in found[-1].text


def test_the_name_of_the_file_is_not_searched(make_document):
    pages = ["Nothing of note is here.", "The parrot sleeps."]
    document = make_document(*pages, name="parrot-parrot.txt")
    assert [passage.page_index for passage in retrieve_passages([document], "parrot", 4, count_words)] == [1]


def test_pages_without_words_and_other_scripts_work(make_document):
    for text in ("…", "the of and", "a b"):
        assert retrieve_passages([make_document("", text, "—")], "anything", 100, count_words)
    assert retrieve_passages([make_document("", " ")], "anything", 100, count_words) == []
    chinese = make_document("天地玄黄。" * 60, "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。")
    (found, *_) = retrieve_passages([chinese], "花落", 60, len)
    assert found.page_index == 1


def test_index_is_built_once_for_a_set_of_documents_and_few_are_kept(make_document, monkeypatch):
    built = []
    build = index_module._build_index
    monkeypatch.setattr(index_module, "_build_index", lambda documents: built.append(documents) or build(documents))
    documents = [make_document(f"Document {number} says something.", name=f"{number}.txt") for number in range(8)]
    for document in [documents[0], documents[0], *documents]:
        retrieve_passages([document], "something", 50, count_words)
    assert len(built) == len(documents)
    assert len(index_module._indexes) == index_module._CACHED_INDEXES


def test_retrieval_needs_no_network_and_prints_nothing():
    # The splitter's defaults would fetch a tokenizer and sentence models; the retriever's would draw progress bars.
    script = (
        "import socket, sys\n"
        "def refuse(*args, **kwargs): raise AssertionError('network')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from pathlib import Path\n"
        "from app.library import Document, DocumentPage, retrieve_passages\n"
        "page = DocumentPage(0, '1', 'The linnet sang. ' * 200)\n"
        "document = Document('0' * 16, 'a.txt', Path('a.txt'), (page,))\n"
        "assert retrieve_passages([document], 'What sang?', 100, lambda text: len(text.split()))\n"
        "assert 'tiktoken' not in sys.modules or not sys.modules['tiktoken'].registry.ENCODINGS\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=300
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
