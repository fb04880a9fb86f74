"""What the scripts that make the corpus share: a document with its right text and its pages' names beside it."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

CORPUS = Path(__file__).parents[2] / "assets" / "corpus"
# So that the same content gives the same bytes.
_WRITTEN_AT = (2026, 1, 1, 0, 0, 0)


def write_document(kind: str, name: str, content: bytes, pages: Sequence[tuple[str, str]]) -> None:
    """Write a document, the right text of its pages, and their labels.

    Args:
        kind: its folder.
        name: of the file.
        content: its bytes.
        pages: label and text of each page, as its author would have them.
    """
    path = CORPUS / kind / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.with_suffix(".txt").write_text("\f".join(text for _, text in pages), encoding="utf-8")
    labels = json.dumps([label for label, _ in pages], ensure_ascii=False)
    path.with_suffix(".pages.json").write_text(labels + "\n", encoding="utf-8")


def zipped(files: Mapping[str, str | bytes], stored: str = "") -> bytes:
    """A zip file; the one named `stored`, which must come first, is not compressed."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _WRITTEN_AT)
            archive.writestr(entry, content, zipfile.ZIP_STORED if name == stored else zipfile.ZIP_DEFLATED)
    return target.getvalue()
