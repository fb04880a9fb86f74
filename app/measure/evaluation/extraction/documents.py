"""`eval documents`: how well documents are read, on a corpus of faults with the right text beside each file.

The corpus is assets/corpus: a folder a kind, small files, and for each its text with a form feed between document
pages. Files whose names end in `_held` were not looked at while the reader was written and have totals of their own;
what their first score (0.963 of the characters, 0.982 of the order) showed was mended afterwards. With a
folder of PDFs that have no right text beside them, this project's reader is compared with pypdf alone.
"""

from __future__ import annotations

import statistics
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from app.errors import UserFacingError
from app.library.formats import SUPPORTED_SUFFIXES
from app.measure.evaluation.extraction.document_readers import PDF_READERS, read_ours, read_pypdf_plain
from app.measure.evaluation.extraction.text_accuracy import character_accuracy, order_accuracy
from app.measure.machine import describe_machine

CORPUS = Path(__file__).parents[4] / "assets" / "corpus"
_HELD_BACK = "_held"
# Ours is worse on a file if it lacks more than this share of the words that pypdf found.
_LOST_SHARE = 0.02
_FEWEST_LOST = 3
_SHORTEST_WORD = 3


def measure_documents(folder: Path | None, on_progress: Callable[[str], None]) -> dict[str, Any]:
    """Read the corpus with every reader, or a folder of PDFs with pypdf and ours.

    Args:
        folder: PDFs without right texts; the corpus if None.
        on_progress: told of each kind, or each hundredth file.

    Returns:
        `rows`, and for the corpus `files` with each file's figures, for a folder `worse` with what ours lacks.

    Raises:
        UserFacingError: the folder holds no PDF.
    """
    measured = _measure_corpus(on_progress) if folder is None else _compare_on_folder(folder, on_progress)
    return {**measured, "machine": describe_machine(torch.device("cpu"))}


def _measure_corpus(on_progress: Callable[[str], None]) -> dict[str, Any]:
    files: list[dict[str, Any]] = []
    for right_path in sorted(CORPUS.rglob("*.txt")):
        path = _document_beside(right_path)
        if path is None:
            continue
        kind, right = path.parent.name, right_path.read_text(encoding="utf-8").replace("\f", "\n")
        on_progress(f"{kind}/{path.name}")
        for reader, read in PDF_READERS.items() if path.suffix == ".pdf" else [("ours", read_ours)]:
            found = "\n".join(read(path))
            files.append(
                {
                    "reader": reader,
                    "kind": kind,
                    "file": path.name,
                    "character_accuracy": round(character_accuracy(found, right), 4),
                    "order_accuracy": round(order_accuracy(found, right), 4),
                }
            )
    return {"rows": [*_rows(files), *_totals(files)], "files": files}


def _document_beside(right_path: Path) -> Path | None:
    """The document whose right text a file is; None for a text that stands alone."""
    endings = [suffix for suffix in SUPPORTED_SUFFIXES if suffix not in (".txt", ".text")]
    return next((path for ending in endings if (path := right_path.with_suffix(ending)).exists()), None)


def _rows(files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for file in files:
        groups[file["reader"], file["kind"]].append(file)
    return [_mean_row(reader, kind, group) for (reader, kind), group in sorted(groups.items())]


def _totals(files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows over all kinds, and over those files that were, or were not, kept back."""
    rows = []
    for reader in dict.fromkeys(file["reader"] for file in files):
        own = [file for file in files if file["reader"] == reader]
        pdf = [file for file in own if file["file"].endswith(".pdf")]
        held = [file for file in pdf if Path(file["file"]).stem.endswith(_HELD_BACK)]
        seen = [file for file in pdf if not Path(file["file"]).stem.endswith(_HELD_BACK)]
        for kind, group in (("PDF, seen", seen), ("PDF, held back", held), ("PDF", pdf), ("all", own)):
            if group and not (kind == "all" and len(group) == len(pdf)):
                rows.append(_mean_row(reader, kind, group))
    return rows


def _mean_row(reader: str, kind: str, files: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "reader": reader,
        "kind": kind,
        "files": len(files),
        "character_accuracy": round(statistics.fmean(file["character_accuracy"] for file in files), 4),
        "order_accuracy": round(statistics.fmean(file["order_accuracy"] for file in files), 4),
    }


def _compare_on_folder(folder: Path, on_progress: Callable[[str], None]) -> dict[str, Any]:
    """Look in each PDF for words that pypdf finds and ours does not.

    pypdf's output is no right text: it tears words and takes numbers of glyphs for letters. A word counts only if
    another file of the folder, or the corpus, has it too. What ours leaves out on purpose (lines drawn twice, headers
    of later pages) counts as lost here as well, so each file that is named wants looking at.
    """
    paths = sorted(folder.rglob("*.pdf"))
    if not paths:
        raise UserFacingError(f"{folder} holds no PDF.")
    found: list[tuple[Path, Counter[str], Counter[str]]] = []
    files_with_word: Counter[str] = Counter()
    for number, path in enumerate(paths):
        if number % 20 == 0:
            on_progress(f"{number} of {len(paths)} files")
        ours, pypdf = (_words("\n".join(read(path))) for read in (read_ours, read_pypdf_plain))
        found.append((path, ours, pypdf))
        files_with_word.update(set(ours) | set(pypdf))
    known = set()
    for right_path in CORPUS.rglob("*.txt"):
        known |= set(_words(right_path.read_text(encoding="utf-8")))
    known |= {word for word, files in files_with_word.items() if files > 1}
    worse, better = [], 0
    for path, ours, pypdf in found:
        confirmed = Counter({word: count for word, count in pypdf.items() if word in known})
        lost = confirmed - ours
        gained = Counter({word: count for word, count in ours.items() if word in known}) - pypdf
        better += gained.total() > max(_FEWEST_LOST, _LOST_SHARE * max(1, confirmed.total()))
        if (pypdf and not ours) or lost.total() > max(_FEWEST_LOST, _LOST_SHARE * confirmed.total()):
            worse.append(
                {
                    "file": str(path.relative_to(folder)),
                    "words_of_pypdf": confirmed.total(),
                    "lost": lost.total(),
                    "gained": gained.total(),
                    "examples": [word for word, _ in lost.most_common(12)],
                }
            )
    row = {
        "files": len(found),
        "with_text_ours": sum(bool(ours) for _, ours, _ in found),
        "with_text_pypdf": sum(bool(pypdf) for _, _, pypdf in found),
        "words_ours": sum(ours.total() for _, ours, _ in found),
        "words_pypdf": sum(pypdf.total() for _, _, pypdf in found),
        "files_better": better,
        "files_worse": len(worse),
    }
    return {"rows": [row], "worse": worse}


def _words(text: str) -> Counter[str]:
    text = unicodedata.normalize("NFKC", text).casefold()
    letters = "".join(character if character.isalpha() else " " for character in text)
    return Counter(word for word in letters.split() if len(word) >= _SHORTEST_WORD)
