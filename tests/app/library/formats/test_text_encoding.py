"""Encodings of text: short and long, plain, in tables and among tags."""

import pytest

from app.library.formats.text_encoding import decode_text

FRENCH = "Très haut au-dessus de la ville, sur une colonne élancée, se dressait la statue : l’épée était à côté. "
GERMAN = "Hoch über der Stadt stand auf einer schlanken Säule die Statue, und ein großer Rubin glühte. Alle hörten es. "
SPANISH = "En la parte más alta de la ciudad se alzaba la estatua del Príncipe. ¿Por qué no eres así?, dijo el niño. "
FINNISH = "Korkealla kaupungin yläpuolella, hoikan pylvään päässä, seisoi patsas. Häntä ihailtiin tässä ja täällä. "
POLISH = "Wysoko nad miastem, na smukłej kolumnie, wznosił się posąg Szczęśliwego Księcia, źle zaś mówiąc: żelazo. "
CZECH = "Vysoko nad městem, na štíhlém sloupu, stála socha Šťastného prince. Byla celá pokryta lístky zlata, říká se. "
TURKISH = "Şehrin yukarısında, uzun bir sütunun üzerinde Mutlu Prens’in heykeli duruyordu. Işığı çok güzeldi. "
ENGLISH = "“High above the city,” he said — on a tall column — stood the statue… It’s ‘gilded’ all over, for £5. "
RUSSIAN = "Высоко над городом, на стройной колонне, стояла статуя Счастливого Принца. Все восхищались Принцем. "
UKRAINIAN = "Високо над містом, на стрункій колоні, стояла статуя Щасливого Принца. Її дуже любили, її й шанували. "
GREEK = "Ψηλά πάνω από την πόλη, σε μια ψηλή κολόνα, στεκόταν το άγαλμα του Ευτυχισμένου Πρίγκιπα. "
HEBREW = "גבוה מעל העיר, על עמוד גבוה, ניצב פסלו של הנסיך המאושר. כולו היה מצופה בעלים דקים של זהב טהור. "
ARABIC = "عاليا فوق المدينة، على عمود طويل، كان ينتصب تمثال الأمير السعيد. وكان الجميع معجبين به جدا. "
THAI = "สูงเหนือเมือง บนเสาสูง มีรูปปั้นของเจ้าชายผู้มีความสุขตั้งอยู่ พระองค์ถูกหุ้มด้วยแผ่นทองคำ "
SIMPLIFIED = "快乐王子的雕像高高地耸立在城市上空一根高大的石柱上面。他浑身上下镶满了薄薄的黄金叶片，世人称羡不已。"
TRADITIONAL = "快樂王子的雕像高高地聳立在城市上空一根高大的石柱上面。他渾身上下鑲滿了薄薄的黃金葉片，世人稱羨不已。"
JAPANESE = "町の上に高く柱がそびえ、その上に幸福の王子の像が立っていました。目は二つの輝くサファイアでした。"
KOREAN = "도시 위로 높이 솟은 기둥 위에 행복한 왕자의 동상이 서 있었습니다. 모두가 왕자를 보고 감탄했습니다. "

TEXTS = [
    ("cp1252", FRENCH), ("cp1252", GERMAN), ("cp1252", SPANISH), ("cp1252", FINNISH), ("cp1252", ENGLISH),
    ("mac_roman", FRENCH), ("mac_roman", GERMAN), ("mac_roman", FINNISH), ("mac_roman", ENGLISH), ("cp850", GERMAN),
    ("cp1250", POLISH), ("iso8859_2", POLISH), ("cp1250", CZECH), ("iso8859_2", CZECH), ("cp1254", TURKISH),
    ("cp1251", RUSSIAN), ("koi8_r", RUSSIAN), ("cp866", RUSSIAN), ("iso8859_5", RUSSIAN), ("mac_cyrillic", RUSSIAN),
    ("cp1251", UKRAINIAN), ("koi8_u", UKRAINIAN), ("cp1253", GREEK), ("iso8859_7", GREEK), ("cp1255", HEBREW),
    ("cp1256", ARABIC), ("iso8859_6", ARABIC), ("cp874", THAI), ("gbk", SIMPLIFIED), ("gb18030", SIMPLIFIED + "😀"),
    ("big5", TRADITIONAL), ("shift_jis", JAPANESE), ("euc_jp", JAPANESE), ("euc_kr", KOREAN),
    ("utf-8", RUSSIAN), ("utf-8-sig", FRENCH), ("utf-16", ENGLISH), ("utf-32", JAPANESE), ("utf-32-le", ENGLISH),
    *((f"utf-16-{order}", text) for order in ("le", "be") for text in (ENGLISH, RUSSIAN, SIMPLIFIED, KOREAN)),
]  # fmt: skip
ENGLISH_WORDS = "The following passage is quoted from the book, as it was printed in the year 1888. "


@pytest.mark.parametrize(("encoding", "text"), TEXTS)
def test_encodings_are_told_apart(encoding, text):
    for characters in (80, 200, 5000):
        plain = (text * (characters // len(text) + 1))[:characters]
        if "😀" in text:
            plain = text
        for written in (
            plain,
            f"{ENGLISH_WORDS * 20}{plain}",
            f"<html><body class='text'><h1>Chapter</h1><p><a href='x'>{plain}</a></p></body></html>",
            "id,name\n" + "".join(f'{number},"{word}",0.5\n' for number, word in enumerate(plain.split(" "))),
        ):
            # Encodings may lack a character of the sample text.
            data = written.encode(encoding, "ignore")
            assert decode_text(data).text == data.decode(encoding).removeprefix("\ufeff")


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("utf-8", RUSSIAN), ("utf-16", ENGLISH), ("cp1251", RUSSIAN), ("cp1252", "“Café” – 5 €")],
)
def test_what_is_certain_is_not_questioned(encoding, text):
    assert decode_text(text.encode(encoding)).assumed_encoding == ""


@pytest.mark.parametrize(
    ("data", "text", "assumed"),
    [
        # As many encodings have an "é" there as not.
        (b"El ni\xf1o", "El niño", "Windows-1252"),
        # 0x81 means nothing in Windows-1252.
        (b"caf\xe9 \x81!", "café \ufffd!", "Windows-1252"),
        ("Tetőtől".encode("cp1250"), "Tetõtõl", "Windows-1252"),
    ],
)
def test_what_is_a_guess_says_so(data, text, assumed):
    decoded = decode_text(data)
    assert (decoded.text, decoded.assumed_encoding) == (text, assumed)


@pytest.mark.parametrize(
    "data",
    [b"\x00\x01\x02" * 100, b"MZ\x90\x00\x03" * 50, bytes(range(256)) * 4, b"\x7fELF\x02\x01\x01" + bytes(57)],
)
def test_binary_content_is_refused(data):
    with pytest.raises(ValueError, match="binary"):
        decode_text(data)


def test_only_a_sample_of_a_long_text_is_judged():
    # Minutes, if it all were; the word without an end is the worst case for finding words.
    for data in ((GERMAN * 30_000).encode("mac_roman"), b"a" * 3_000_000 + b"\xe9", "光".encode("gbk") * 1_000_000):
        assert len(decode_text(data).text) > 900_000
