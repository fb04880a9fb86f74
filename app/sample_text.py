"""A long real text, for measurements."""

from __future__ import annotations

from pathlib import Path

from app.errors import UserFacingError

BOOKS = Path(__file__).parent.parent / "assets" / "books"


def read_text(text: Path | None) -> tuple[str, str]:
    """The name and the text of a document.

    Args:
        text: any document the app reads; None takes the sample book.

    Raises:
        UserFacingError: if it cannot be read.
    """
    from app.library import read_document

    path = text or next(BOOKS.glob("*.pdf"))
    document = read_document(path)
    return path.name, "\n\n".join(page.text for page in document.document_pages)


def read_text_tokens(tokenizer, text: Path | None, tokens: int, repeat: bool = False) -> list[int]:
    """The first `tokens` token ids of a text.

    Args:
        tokenizer: of the model.
        text: any document the app reads; None takes the sample book.
        tokens: how many.
        repeat: start over where the text is too short, for measurements of speed alone.

    Raises:
        UserFacingError: if the text is too short and must not be repeated, or cannot be read.
    """
    name, content = read_text(text)
    ids = tokenizer(content, add_special_tokens=False)["input_ids"]
    if len(ids) < tokens and not repeat:
        raise UserFacingError(f"{name} has {len(ids)} tokens, {tokens} are needed. Give a longer one with --text.")
    return (ids * -(-tokens // len(ids)))[:tokens]
