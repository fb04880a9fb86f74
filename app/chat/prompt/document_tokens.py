"""How many tokens documents have, and what these are if they may fit the window.

A text that is far longer than the window is never tokenised as a whole, which would take minutes and more memory than
the model: its tokens are estimated from samples. Knows nothing of prompts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from app.chat.prompt.template import ChatTokenizer, EncodedText
from app.library import Document

# Prose has three to five, code and tables with wide indentation up to ten. Beyond it no text fits the window.
_MOST_CHARACTERS_PER_TOKEN = 16
_SAMPLES = 64
_SAMPLE_CHARACTERS = 1000


@dataclass(frozen=True)
class TokenCount:
    """Tokens of one or more texts; estimated to about a twentieth unless `is_exact`."""

    tokens: int
    is_exact: bool = True

    @classmethod
    def total(cls, counts: Iterable[TokenCount]) -> TokenCount:
        """The sum, which is exact if all its parts are."""
        counts = list(counts)
        return cls(sum(count.tokens for count in counts), all(count.is_exact for count in counts))

    def __str__(self) -> str:
        """The number as people read it: "6,310", "about 13,700,000"."""
        return f"{self.tokens:,}" if self.is_exact else f"about {self.tokens:,}"


class DocumentTokens:
    """Counts and keeps the tokens of documents, as long as a conversation holds them.

    Args:
        tokenizer: of the model.
        context_tokens: its window; the tokens of longer documents are not kept.
    """

    def __init__(self, tokenizer: ChatTokenizer, context_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._context_tokens = context_tokens
        self._counts: WeakKeyDictionary[Document, TokenCount] = WeakKeyDictionary()
        self._encoded: WeakKeyDictionary[Document, tuple[EncodedText, ...]] = WeakKeyDictionary()

    def count(self, document: Document) -> TokenCount:
        """Tokens of a document's text, exact for all that may fit the window."""
        counted = self._counts.get(document)
        if counted is None:
            could_fit = document.text_characters <= self._context_tokens * _MOST_CHARACTERS_PER_TOKEN
            counted = self._counts[document] = self._encode(document) if could_fit else self._estimate(document)
        return counted

    def pages(self, document: Document) -> tuple[EncodedText, ...]:
        """The tokens of each document page, in order.

        Raises:
            KeyError: the document alone has more tokens than the window.
        """
        self.count(document)
        return self._encoded[document]

    def _encode(self, document: Document) -> TokenCount:
        tokens = 0
        kept: list[EncodedText] = []
        for page in document.document_pages:
            encoded = self._tokenizer.encode(page.text)
            tokens += len(encoded.token_ids)
            if tokens <= self._context_tokens:
                kept.append(encoded)
        if tokens <= self._context_tokens:
            self._encoded[document] = tuple(kept)
        return TokenCount(tokens)

    def _estimate(self, document: Document) -> TokenCount:
        """Tokens by the characters of a token in samples that begin at equal distances, to three digits."""
        distance = document.text_characters / _SAMPLES
        sampled_characters = sampled_tokens = page_start = taken = 0
        for page in document.document_pages:
            while taken < _SAMPLES and (start := int(taken * distance) - page_start) < len(page.text):
                sample = page.text[start : start + _SAMPLE_CHARACTERS]
                sampled_characters += len(sample)
                sampled_tokens += self._tokenizer.count(sample)
                taken += 1
            page_start += len(page.text)
        tokens = document.text_characters * sampled_tokens / sampled_characters
        return TokenCount(int(float(f"{tokens:.2e}")), is_exact=False)
