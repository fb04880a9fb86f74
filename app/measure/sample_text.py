"""A long real text, for measurements."""

from __future__ import annotations

from pathlib import Path

from app.errors import UserFacingError

BOOKS = Path(__file__).parents[2] / "assets" / "books"


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
    ids = read_book(tokenizer, text)
    if len(ids) < tokens and not repeat:
        name, _ = read_text(text)
        raise UserFacingError(f"{name} has {len(ids)} tokens, {tokens} are needed. Give a longer one with --text.")
    return repeat_tokens(ids, tokens)


def read_book(tokenizer, text: Path | None) -> list[int]:
    """All token ids of a text; arguments as of `read_text_tokens`.

    Raises:
        UserFacingError: if it cannot be read, or is empty.
    """
    name, content = read_text(text)
    ids = tokenizer(content, add_special_tokens=False)["input_ids"]
    if not ids:
        raise UserFacingError(f"{name} has no text. Give another one with --text.")
    return ids


def repeat_tokens(token_ids: list[int], tokens: int) -> list[int]:
    """The first `tokens` of endless repetitions."""
    return (token_ids * -(-tokens // len(token_ids)))[:tokens]
