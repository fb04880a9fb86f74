"""Whether a question is about a document as a whole, which no passage of it answers.

"What is this about?", "Summarise the book", "Wer hat das geschrieben?": such a question has a word that asks for the
whole, and no other that could be searched for. All of its words must be known here, in one language, so that "What is
said of whales?" and "Who wrote the letter?" are searched for as always. Names of the documents may stand in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from app.library import Document

_WORD = re.compile(r"[^\W_]+")
_ENDING = re.compile(r"\.\w{1,5}$")


@dataclass(frozen=True)
class _Language:
    """Words of one language.

    Args:
        asking: beginnings of words that ask for the whole.
        others: words that such a question may have besides.
    """

    asking: tuple[str, ...]
    others: frozenset[str]


def _language(asking: str, others: str) -> _Language:
    return _Language(tuple(asking.split()), frozenset(others.split()))


# What ends in "=" is a whole word, anything else a beginning.
_LANGUAGES = (
    _language(
        "about= summar overview= gist= topic theme subject= synopsis abstract= tldr author= authors= wrote= written= "
        "writer= title= chapters= sections= contents= outline toc= structure= structured= organised= organized= "
        "purpose= takeaway conclusion conclud recap points= ideas= tl= subjects= deal= deals= sum=",
        "a an the this that it its is are was were be what which who whom whose when how does do did can could would "
        "will you i me we us my our your please give tell show list name write make describe explain say says "
        "need talk talks talking cover covers covered of in on for to from by with and or as at all main mainly "
        "major "
        "key central general overall whole entire full complete short brief briefly quick quickly high level basic "
        "simple few one two three four five ten sentence sentences paragraph paragraphs words line lines bullet "
        "bullets point points idea ideas argument arguments message finding findings most important book books "
        "document documents doc docs text texts file files pdf paper article report manual guide handbook novel "
        "story "
        "play work publication thesis there have has many up out into table most here called s dr",
    ),
    _language(
        "zusammenfass fasse= fass= zusammengefasst= worum= handelt= überblick übersicht inhalt= inhalts thema= "
        "themen= punkte= handel= handelt= wem= autor verfasser geschrieben= schrieb= titel= kapitel= gliederung= "
        "aufbau= kernaussage hauptaussage "
        "geht=",
        "der die das den dem des ein eine einen einer eines dieses diese dieser diesem diesen ist sind war hat haben "
        "hier es im in von vom zu zum zur über und oder was wer wie wovon wieviele viele welche welchen welcher "
        "welches geben machen wir um mir uns mich bitte gib gebe nenne liste zeige erkläre beschreibe kannst du "
        "sie ich kurz kurze kurzen knapp "
        "sätzen satz worten stichpunkten punkte wichtigsten wichtigste haupt hauptthema hauptthemen ganze ganzen "
        "gesamte buch buches buchs dokument dokuments dokumente text textes texts datei pdf artikel bericht handbuch "
        "roman werk auf es gibt mal zusammen drei zwei fünf behandelt man",
    ),
    _language(
        "résum resum parle= propos= sujet= thème theme= auteur écrit= ecrit= titre= chapitres= sommaire= plan= "
        "aperçu synthèse synthétis vue=",
        "le la les l un une des de d du ce cet cette ces ça ca c est sont a qui que qu quoi quel quelle quels "
        "quelles "
        "quelle de dans en sur pour et ou au aux à avec par il elle on moi me nous peux pouvez tu vous s te "
        "plaît plait "
        "il donne donner donnez fais faire fait liste lister listez décris décrivez explique dis moi brièvement bref "
        "court courte quelques mots phrases phrase points principaux principal principale principales clés idées "
        "idée "
        "livre document documents texte textes fichier pdf article rapport manuel roman ouvrage histoire combien y "
        "trois cinq deux tout toute entier ensemble générale traite",
    ),
    _language(
        "resum trata= tratan= tema= temas= asunto= autor escrib escrit título= titulo= capítulos= capitulos= índice= "
        "indice= sinopsis= habla= esquema= síntesis= sintesis=",
        "el la los las lo un una de del en este esta estos esto ese esa es son se qué que quién quien cuál cual "
        "cuáles "
        "cómo de sobre para por y o a al con me nos puedes puede haz haga dame da dime lista enumera muestra "
        "describe "
        "explica favor breve brevemente corto pocas palabras frases puntos principales principal clave ideas idea "
        "libro documento documentos texto archivo pdf artículo informe manual novela obra historia cuántos hay tiene "
        "todo toda general ha tres cinco dos hacer",
    ),
    _language(
        "riassu riepilog argomento= argomenti= tema= temi= autore= scritto= scrisse= titolo= capitoli= indice= "
        "sommario= tratta= parla= sintesi= panoramica=",
        "il lo la i gli le l un uno una di del dello della dei in questo questa quest questi è e sono si che "
        "cosa chi "
        "cos qual quali come su per con a al mi ci puoi può fai fammi dammi dimmi elenca mostra descrivi spiega "
        "favore "
        "breve brevemente poche parole frasi punti principali principale chiave idee libro documento documenti testo "
        "file pdf articolo rapporto manuale romanzo opera storia quanti ha tutto tutta generale tre cinque due fare",
    ),
    _language(
        "resum trata= fala= tema= temas= assunto= autor escrev escrit título= titulo= capítulos= capitulos= índice= "
        "sinopse= síntese=",
        "o a os as um uma de do da dos das em no na este esta isto isso esse essa é são se que qual quais quem como "
        "sobre para por e ou ao com me nos pode podes faça faz dê diga lista liste mostre descreva explique "
        "favor breve "
        "brevemente curto poucas palavras frases pontos principais principal chave ideias livro documento documentos "
        "texto arquivo ficheiro pdf artigo relatório manual romance obra história quantos há tem todo toda geral "
        "três "
        "cinco dois fazer",
    ),
    _language(
        "samenvat vat= gaat= onderwerp= onderwerpen= thema= auteur schrijver= geschreven= schreef= titel= "
        "hoofdstukken= inhoud inhoudsopgave= overzicht= samengevat=",
        "de het een dit deze dat is zijn heeft er in van voor over op met en of wat wie waar waarover hoe welke veel "
        "mij me ons geef toon noem lijst beschrijf leg uit kun kan je u alsjeblieft kort korte enkele woorden zinnen "
        "punten belangrijkste hoofd boek document documenten tekst bestand pdf artikel rapport handleiding roman "
        "werk "
        "verhaal hele alle samen drie vijf twee ga",
    ),
)
# Without blanks between words: what asks, and what else may stand there.
_PHRASES_ASKING = re.compile(
    r"总结|總結|概括|概述|摘要|大意|讲什么|讲的是什么|讲了什么|講什麼|关于什么|關於什麼|说什么|说了什么|主题|主題|主旨|作者|谁写|誰寫|标题|標題|书名|目录|目錄|章节|章節"
    r"|要約|まとめ|概要|あらすじ|何について|著者|作者|誰が書|書いたのは|目次|題名|テーマ|主題"
    r"|요약|개요|줄거리|저자|누가\s*썼|제목|목차|주제|무엇에\s*(?:관한|대한)"
)
_PHRASES_OTHERS = re.compile(
    r"请|請|帮我|幫我|给我|給我|一下|这|這|那|本|篇|份|个|個|书|書|文档|文檔|文件|文章|小说|小說|报告|報告|手册|全文|内容|內容|主要|简短|简单|简要|是|的|了|吗|呢|什么|什麼|谁|誰|写|寫|有|哪些|列出|全部|所有|和|在|里"
    r"|ですか|です|この|その|本|文書|文章|資料|小説|報告書|マニュアル|を|は|が|の|に|で|も|て|ください|下さい|して|すべて|全体|何|ます|か|教え|簡単|短く|列挙|章|誰|書いた|について|しました|た|れ"
    r"|이|그|책|문서|글|소설|보고서|파일|을|를|은|는|가|의|에|해|줘|주세요|주십시오|해주세요|하세요|무엇|뭐|인가요|입니까|예요|이에요|나요|전체|간단히|짧게|모든|대해|알려|내용"
    r"|\s|[0-9一二三四五句]|[^\w\s]"
)
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_MOST_WORDS = 30
_LEAST_NAME_CHARACTERS = 3


def asks_for_the_whole(question: str, documents: Sequence[Document] = ()) -> bool:
    """Whether a question is about the documents as a whole.

    Args:
        question: as asked.
        documents: their names may stand in it.
    """
    text = question.casefold()
    names = {name.casefold() for document in documents for name in (document.name, document.shown_name)}
    for name in sorted(names | {_ENDING.sub("", name) for name in names}, key=len, reverse=True):
        if len(name) >= _LEAST_NAME_CHARACTERS:
            text = text.replace(name, " ")
    if _CJK.search(text):
        left, asking = _PHRASES_ASKING.subn("", text)
        return bool(asking) and not _PHRASES_OTHERS.sub("", left)
    words = _WORD.findall(text)
    return 0 < len(words) <= _MOST_WORDS and any(_is_of(language, words) for language in _LANGUAGES)


def _is_of(language: _Language, words: Sequence[str]) -> bool:
    asking = _asking(language)
    asks = [bool(asking.fullmatch(word)) for word in words]
    # "In 5 sentences"; but a number at the end names a chapter or a page.
    is_known = [is_asking or word in language.others for is_asking, word in zip(asks, words, strict=True)]
    return any(asks) and all(
        known or (word.isdecimal() and number < len(words) - 1)
        for number, (known, word) in enumerate(zip(is_known, words, strict=True))
    )


@cache
def _asking(language: _Language) -> re.Pattern[str]:
    return re.compile("|".join(one[:-1] if one.endswith("=") else rf"{one}\w*" for one in language.asking))
