"""Which passages each turn has brought into the prompt, so that the same prompt can be made again.

Those of the first turn stand before the instructions, those of each later one before its question: every prompt
continues the one before it. When the window is full, a turn begins anew: its passages take the place of all earlier
ones. Knows nothing of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from app.library import Document, Passage

PassageKind = Literal["search", "overview"]


@dataclass(frozen=True)
class PassagePlace:
    """Characters `start_char` to `end_char`, end excluded, of the text of a document page."""

    document_id: str
    page_index: int
    start_char: int
    end_char: int


@dataclass(frozen=True)
class TurnPassages:
    """What one turn has brought into the prompt.

    Args:
        places: of its passages, in order; none where all that its question needs stood there already.
        begins_anew: whether these are the first, and those of the turns before it are not in the prompt any more.
        kind: "search" for hits of the question's words; "overview" for outline, beginning and an even spread.
    """

    places: tuple[PassagePlace, ...]
    begins_anew: bool
    kind: PassageKind = "search"

    @classmethod
    def of(cls, passages: Sequence[Passage], begins_anew: bool, kind: PassageKind) -> TurnPassages:
        """Of passages that were found."""
        places = tuple(
            PassagePlace(one.document.document_id, one.page_index, one.start_char, one.end_char) for one in passages
        )
        return cls(places, begins_anew, kind)

    @classmethod
    def from_stored(cls, values: dict[str, Any]) -> TurnPassages:
        """What `dataclasses.asdict` made of one.

        Raises:
            KeyError, TypeError: if it is none.
        """
        places = tuple(PassagePlace(**place) for place in values["places"])
        return cls(places, values["begins_anew"], values["kind"])


class PastTurn(Protocol):
    """A question and the tokens that answered it, without the thought before them and the stop token.

    `prompt_passages` are None where the whole documents were in the prompt, or an older version has not kept them.
    """

    question: str
    answer_token_ids: Sequence[int]

    @property
    def prompt_passages(self) -> TurnPassages | None: ...


@dataclass(frozen=True)
class StandingBlock:
    """The passages of one turn, and their kind."""

    passages: tuple[Passage, ...] = ()
    kind: PassageKind = "search"


@dataclass(frozen=True)
class StandingPassages:
    """What stands in a conversation's prompt.

    Args:
        first_turn: the turn that began anew; its passages stand before the instructions.
        blocks: of that turn and each one after it.
    """

    first_turn: int
    blocks: tuple[StandingBlock, ...]

    @property
    def passages(self) -> list[Passage]:
        return [passage for block in self.blocks for passage in block.passages]

    def before_question(self, turn: int) -> StandingBlock:
        """What stands before the question of a turn."""
        return self.blocks[turn - self.first_turn] if turn > self.first_turn else StandingBlock()


def standing_passages(documents: Sequence[Document], turns: Sequence[PastTurn]) -> StandingPassages | None:
    """What stands in the prompt after `turns`; None if nothing does, or some of it is no longer there."""
    brought = [turn.prompt_passages for turn in turns]
    starts = [index for index, one in enumerate(brought) if one is not None and one.begins_anew]
    if not starts:
        return None
    by_id = {document.document_id: document for document in documents}
    blocks = []
    for turn, one in zip(turns[starts[-1] :], brought[starts[-1] :], strict=True):
        # A question that was never answered is not told, and what it brought neither, unless all stands on it.
        if one is None or (not turn.answer_token_ids and not one.begins_anew):
            blocks.append(StandingBlock())
            continue
        block = _block(by_id, one)
        if block is None:
            return None
        blocks.append(block)
    return StandingPassages(starts[-1], tuple(blocks))


def brought_block(documents: Sequence[Document], brought: TurnPassages) -> StandingBlock | None:
    """The passages that a turn has brought; None if one of them is no longer there."""
    return _block({document.document_id: document for document in documents}, brought)


def _block(documents: dict[str, Document], brought: TurnPassages) -> StandingBlock | None:
    passages = [_passage(documents, place) for place in brought.places]
    return None if None in passages else StandingBlock(tuple(passages), brought.kind)


def _passage(documents: dict[str, Document], place: PassagePlace) -> Passage | None:
    document = documents.get(place.document_id)
    if document is None or not 0 <= place.page_index < document.page_count:
        return None
    page = document.document_pages[place.page_index]
    # Another version may read another text out of the same file.
    if not 0 <= place.start_char < place.end_char <= len(page.text):
        return None
    text = page.text[place.start_char : place.end_char]
    return Passage(document, page.index, page.page_label, place.start_char, place.end_char, text)
