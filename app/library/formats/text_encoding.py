"""What encoding a text is in: its mark, UTF-8, and else the likeliest of those that are in use.

Two kinds of text need two kinds of judgement. Where most letters are bytes above 127 (Cyrillic, Greek, Chinese, ...),
charset-normalizer tells the encodings apart. Where such bytes are accents among ASCII letters, it takes French for
Big5; there the accented letters are compared with those of each language. Only the words that hold such bytes are
looked at, so that tags, tables and English around them do not matter. Knows nothing of files.
"""

import codecs
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

# UTF-32's mark begins with UTF-16's: the longer ones first.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BINARY_CONTROLS = bytes(byte for byte in range(32) if byte not in b"\t\n\v\f\r\x1b")
_BINARY_SHARE = 0.02
_SAMPLE_BYTES = 1 << 16

_HIGH_BYTE = re.compile(rb"[\x80-\xff]")
# The rest of a word: second bytes of Shift JIS, Big5 and GBK begin at 0x40, and those of GB 18030 may be digits.
_WORD_REST = re.compile(
    rb"(?:[\x40-\xff]|(?<=[\x81-\xfe])[0-9](?=[\x81-\xfe])|(?<=[\x81-\xfe][0-9][\x81-\xfe])[0-9]){1,1000}"
)
_WORD_START_BYTES = 24
_HIGH_RUN = re.compile(rb"[\x80-\xff]{2,}")
# In accented words fewer bytes than this are high, or fewer of these beside another: Big5 has 0.6 and 0.8 at the least.
_ACCENTED_HIGH_SHARE = 0.5
_ACCENTED_RUN_SHARE = 0.75

# Supersets stand for what they contain: GB 18030 for GB 2312 and GBK, cp932 for Shift JIS, cp949 for EUC-KR. In the
# order in which a few words that could be in any of them are taken to be.
_OTHER_SCRIPTS = {
    "cp1251": "Windows-1251 (Cyrillic)",
    "koi8_r": "KOI8-R (Cyrillic)",
    "koi8_u": "KOI8-U (Cyrillic)",
    "cp866": "DOS 866 (Cyrillic)",
    "gb18030": "GB 18030 (Chinese)",
    "cp932": "Shift JIS (Japanese)",
    "euc_jp": "EUC-JP (Japanese)",
    "cp949": "EUC-KR (Korean)",
    "big5": "Big5 (Chinese)",
    "iso8859_5": "ISO 8859-5 (Cyrillic)",
    "mac_cyrillic": "Mac Cyrillic",
    "cp1253": "Windows-1253 (Greek)",
    "iso8859_7": "ISO 8859-7 (Greek)",
    "cp1255": "Windows-1255 (Hebrew)",
    "cp1256": "Windows-1256 (Arabic)",
    "iso8859_6": "ISO 8859-6 (Arabic)",
    "cp874": "Windows-874 (Thai)",
}
_WESTERN = (
    "àâæçéèêëîïôœùûüÿ",  # French
    "äöüß",
    "áéíñóúüªº",  # Spanish
    "ãáàâçéêíõóôúüªº",  # Portuguese
    "àèéìíîòóùú",  # Italian
    "åäöæøé",  # Swedish, Norwegian, Danish, Finnish
    "áðéíóúýþæö",  # Icelandic
    "áàéèëêïíóòöôúùüç",  # Dutch, Catalan
)
_CENTRAL = (
    "ąćęłńóśźż",  # Polish
    "áčďéěíňóřšťúůýž",  # Czech
    "áäčďéíĺľňóôŕšťúýž",  # Slovak
    "áéíóöőúüű",  # Hungarian
    "ăâîşţ",  # Romanian
    "čćđšž",  # Croatian, Slovene
)
# Name, languages, and what is taken off because the encoding is rare; of equally likely ones, the first.
_ACCENTED = {
    "cp1252": ("Windows-1252", _WESTERN, 0.0),
    "mac_roman": ("Mac Roman", _WESTERN, 0.05),
    "cp1250": ("Windows-1250", _CENTRAL, 0.05),
    "iso8859_2": ("ISO 8859-2", _CENTRAL, 0.1),
    "cp1254": ("Windows-1254 (Turkish)", ("âçğıîöşûü",), 0.05),
    "cp1257": ("Windows-1257 (Baltic)", ("ąčęėįšųūž", "āčēģīķļņšūž", "äõöüšž"), 0.1),
    "cp850": ("DOS 850", _WESTERN, 0.15),
    "cp852": ("DOS 852", _CENTRAL, 0.2),
}
_PUNCTUATION = frozenset("“”‘’„‚«»‹›–—…•·°§©®™€£¿¡†±×÷µ²³¼½¾\u00a0\u00ad")
# Where Romance languages and English have one; elsewhere in a word it may be a letter of another encoding.
_USUAL_APOSTROPHE = re.compile(r"(?<!\w)(?:\w|[Qq]u|[Dd]ell|[Aa]ll|[Uu]n)(’)(?=\w)|(’)(?:s|t|d|m|re|ll|ve)(?!\w)")
# A second reading that is this close to the best one, and differs, leaves doubt.
_CLEAR_LEAD = 0.15
_LIKELY = 0.8


@dataclass(frozen=True)
class DecodedText:
    """A text and what was assumed of its encoding.

    Attributes:
        text: bytes that mean nothing in the encoding are U+FFFD.
        assumed_encoding: its name if it is not certain; "" if it is.
    """

    text: str
    assumed_encoding: str = ""


def decode_text(data: bytes) -> DecodedText:
    """Decode text of unknown encoding.

    Args:
        data: the whole of the text.

    Raises:
        ValueError: the bytes are not text.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return DecodedText(data.decode(encoding, "replace"))
    if _has_binary_bytes(data):
        return _decode_wide(data)
    if is_utf_8(data):
        return DecodedText(data.decode("utf-8"))
    words = _words_with_high_bytes(data)
    encoding, name, is_certain = _likeliest_accented(words) if _is_accented(words) else _likeliest_script(words)
    text = data.decode(encoding, "replace")
    return DecodedText(text, "" if is_certain and "\ufffd" not in text else name)


def is_utf_8(data: bytes) -> bool:
    """Whether all of the bytes are UTF-8, which other encodings hardly ever are by chance."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _has_binary_bytes(data: bytes) -> bool:
    controls = len(data) - len(data.translate(None, _BINARY_CONTROLS))
    return controls > _BINARY_SHARE * len(data) or data.count(0) > 1 + len(data) // 10_000


def _decode_wide(data: bytes) -> DecodedText:
    """UTF-16 or UTF-32 without a mark, whose ASCII characters are full of zero bytes."""
    for encoding in ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if _reads_like_text(text[:_SAMPLE_BYTES]):
            return DecodedText(text)
    raise ValueError("binary content")


def _reads_like_text(text: str) -> bool:
    """Whether nearly all characters are letters, marks, digits, punctuation or blanks, and of few scripts."""
    common = sum(character.isspace() or unicodedata.category(character)[0] in "LMNPS" for character in text)
    # Bytes in the wrong order give letters, too, but of scripts from all over: U+0041 becomes U+4100.
    scripts = Counter(_script(character) for character in text)
    main = scripts.pop(0, 0) + max(scripts.values(), default=0)
    has_blanks = any(character in " \n。、，" for character in text)
    return common >= 0.98 * len(text) and main >= 0.9 * len(text) and has_blanks


def _script(character: str) -> int:
    """A number for the script that a character is of: 256 characters in a row, or one of the large ones."""
    if "\u3000" <= character <= "\u9fff" or character >= "\uff00":
        return 0x4E
    return 0xAC if "\uac00" <= character <= "\ud7af" else ord(character) >> 8


def _words_with_high_bytes(data: bytes) -> bytes:
    """The first words with bytes above 127, apart by blanks."""
    words: list[bytes] = []
    size = end = 0
    while size < _SAMPLE_BYTES and (high := _HIGH_BYTE.search(data, end)):
        start = high.start()
        while start > max(end, high.start() - _WORD_START_BYTES) and data[start - 1] >= 0x40:
            start -= 1
        end = _WORD_REST.match(data, high.start()).end()
        words.append(data[start:end])
        size += end - start + 1
    return b" ".join(words)


def _is_accented(words: bytes) -> bool:
    high_bytes = len(words) - len(words.translate(None, bytes(range(128, 256))))
    in_runs = sum(len(run) for run in _HIGH_RUN.findall(words))
    return in_runs < _ACCENTED_RUN_SHARE * high_bytes or high_bytes < _ACCENTED_HIGH_SHARE * len(words)


def _likeliest_accented(words: bytes) -> tuple[str, str, bool]:
    """(codec, name, whether that is certain) by the share of accented letters that one language has."""
    readings = []
    for encoding, (name, alphabets, rarity) in _ACCENTED.items():
        text = words.decode(encoding, "replace")
        readings.append((_share_of_language(text, alphabets) - rarity, encoding, name, text))
    # Stable: of equals the first.
    best_share, encoding, name, best_text = max(readings, key=lambda reading: reading[0])
    second_share = max((share for share, _, _, text in readings if text != best_text), default=0.0)
    return encoding, name, best_share >= _LIKELY and best_share - second_share >= _CLEAR_LEAD


def _share_of_language(text: str, alphabets: tuple[str, ...]) -> float:
    """How many of the characters beyond ASCII are punctuation, or of that language that has the most of them."""
    total, punctuation = 0, 0.0
    letters: Counter[str] = Counter()
    usual = {match.start(match.lastindex) for match in _USUAL_APOSTROPHE.finditer(text)}
    for position, (before, character, after) in enumerate(zip(" " + text, text, text[1:] + " ", strict=False)):
        if character < "\x80":
            continue
        total += 1
        if character in _PUNCTUATION:
            within_word = before.isalpha() and after.isalpha() and character not in "–—" and position not in usual
            punctuation += (0.5 if character == "’" else 0.0) if within_word else 1.0
        elif not (character.isupper() and before.islower()):
            letters[character.lower()] += 1
    best = max(sum(letters[letter] for letter in alphabet) for alphabet in alphabets)
    return (punctuation + best) / max(1, total)


def _likeliest_script(words: bytes) -> tuple[str, str, bool]:
    """(codec, name, whether that is certain) by charset-normalizer."""
    from charset_normalizer import from_bytes

    matches = list(from_bytes(words, cp_isolation=list(_OTHER_SCRIPTS)))
    if not matches:
        return "cp1252", "Windows-1252", False
    order = list(_OTHER_SCRIPTS)
    # It finds no language in less than a line, and then takes the first of its own list.
    alike = [match for match in matches if (match.chaos, match.coherence) == (matches[0].chaos, matches[0].coherence)]
    best = min(alike, key=lambda match: (_case_errors(str(match)), order.index(match.encoding)))
    others = [match for match in matches if str(match) != str(best)]
    is_certain = best.chaos < 0.1 and all(best.coherence - other.coherence >= _CLEAR_LEAD for other in others)
    return best.encoding, _OTHER_SCRIPTS[best.encoding], is_certain


def _case_errors(text: str) -> int:
    """Capitals behind small letters, as when Cyrillic is read in another order."""
    return sum(before.islower() and after.isupper() for before, after in zip(text, text[1:], strict=False))
