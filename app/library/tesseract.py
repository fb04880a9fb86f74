"""Tesseract, if it is installed: where it is, and which languages it knows.

It recognises text in pictures (OCR). It comes with no package of Python's, so that whoever wants it installs it; see
https://tesseract-ocr.github.io/. What it is given to read, `app.library.formats.recognised_pages` knows.
"""

import locale
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.errors import UserFacingError

_PROGRAM = "tesseract"
# The installer of Windows leaves it off the search path.
_OTHER_PLACES = (Path("C:/Program Files/Tesseract-OCR/tesseract.exe"),)
_LISTING_S = 20.0
# These are no languages: which way up a page is, and mathematical signs.
_NO_LANGUAGES = ("osd", "equ", "snum")
# All of so few were installed on purpose; each more makes recognition slower.
_MOST_LANGUAGES = 3
_ENGLISH = "eng"
_HOW_TO_INSTALL = (
    "Install it (Debian and Ubuntu: apt install tesseract-ocr; macOS: brew install tesseract; Windows: winget install "
    "UB-Mannheim.TesseractOCR), with the languages of your documents, and try again."
)
# Tesseract's names for the languages of a system's settings, where they do not begin with the same letters.
_NAMES = {
    "cs": "ces", "de": "deu", "el": "ell", "es": "spa", "et": "est", "eu": "eus", "fa": "fas", "fr": "fra",
    "ga": "gle", "hr": "hrv", "is": "isl", "ja": "jpn", "ka": "kat", "lt": "lit", "lv": "lav", "mk": "mkd",
    "nb": "nor", "nl": "nld", "nn": "nor", "pl": "pol", "pt": "por", "sk": "slk", "sr": "srp", "sv": "swe",
    "tr": "tur", "zh": "chi_sim",
}  # fmt: skip


@dataclass(frozen=True)
class TextRecognition:
    """How text is recognised.

    Args:
        program: path of Tesseract.
        languages: as it takes them: "eng+deu".
        finds_orientation: whether it can tell which way up a page is.
    """

    program: str
    languages: str
    finds_orientation: bool


def find_recognition(wanted_languages: str = "") -> TextRecognition:
    """How text is recognised on this machine.

    Args:
        wanted_languages: "eng+deu"; "" for all that are installed, if they are few, else English and the system's.

    Raises:
        UserFacingError: Tesseract is not installed, does not run, or has not those languages; says what to do.
    """
    program = shutil.which(_PROGRAM) or next((str(path) for path in _OTHER_PLACES if path.is_file()), None)
    if program is None:
        raise UserFacingError(f"Text recognition needs Tesseract, which is not installed. {_HOW_TO_INSTALL}")
    installed = _installed_languages(program)
    languages = wanted_languages.split("+") if wanted_languages else _chosen_languages(installed)
    missing = [language for language in languages if language not in installed]
    if missing or not languages:
        raise UserFacingError(
            f"Tesseract has no language {', '.join(missing) or 'at all'}. Installed are: "
            f"{', '.join(installed) or 'none'}. Install what is missing (Debian and Ubuntu: apt install tesseract-ocr-"
            f"{(missing or [_ENGLISH])[0].replace('_', '-')}), or choose others with --ocr-languages."
        )
    return TextRecognition(program, "+".join(languages), "osd" in installed)


def _installed_languages(program: str) -> list[str]:
    try:
        listed = subprocess.run(
            [program, "--list-langs"], capture_output=True, timeout=_LISTING_S, check=True, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise UserFacingError(f"Tesseract ({program}) does not run: {error}. Install it anew.") from error
    # Older versions list them among their messages.
    lines = (listed.stdout or listed.stderr).decode("utf-8", "replace").splitlines()
    return [line.strip() for line in lines if line.strip() and " " not in line.strip()]


def _chosen_languages(installed: Sequence[str]) -> list[str]:
    languages = [name for name in installed if name not in _NO_LANGUAGES and "/" not in name]
    if len(languages) > _MOST_LANGUAGES:
        code = (locale.getlocale()[0] or "").partition("_")[0]
        own = _NAMES.get(code, code)
        own_names = [name for name in languages if own and (name == own or (len(own) == 2 and name.startswith(own)))]
        languages = [name for name in languages if name == _ENGLISH] + own_names[:1] or languages[:1]
    # The first one counts most.
    return sorted(dict.fromkeys(languages), key=lambda name: name != _ENGLISH)
