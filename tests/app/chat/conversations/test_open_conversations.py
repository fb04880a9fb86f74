"""Which conversation is put away for others, and that it comes back."""

from __future__ import annotations

import pytest

from app.chat.conversations.conversation import Conversation
from app.chat.conversations.open_conversations import MAX_CONVERSATIONS, OpenConversations


class Shelf:
    """Stored conversations, and what happens to them."""

    def __init__(self) -> None:
        self.stored: set[str] = set()
        self.watched: set[str] = set()
        self.away: list[Conversation] = []
        self.open = OpenConversations(self.load, self.watched.__contains__, self.away.append)

    def load(self, conversation_id):
        return Conversation(conversation_id) if conversation_id in self.stored else None

    def new(self, **fields) -> Conversation:
        conversation = Conversation(**fields)
        self.stored.add(conversation.conversation_id)
        return self.open.add(conversation)

    def fill(self) -> list[Conversation]:
        return [self.new() for _ in range(MAX_CONVERSATIONS)]


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def test_the_conversation_unused_for_longest_is_put_away_and_comes_back(shelf):
    first, second, *_ = shelf.fill()
    assert shelf.open.find(first.conversation_id) is first  # used just now
    shelf.new()
    assert shelf.away == [second]
    assert shelf.open.find(first.conversation_id) is first
    again = shelf.open.find(second.conversation_id)
    assert again is not second and again.conversation_id == second.conversation_id
    assert shelf.open.find(second.conversation_id) is again


def test_one_that_is_in_use_or_not_stored_stays(shelf):
    unkept = shelf.new(is_kept=False)
    seen, answering = shelf.new(), shelf.new()
    shelf.watched.add(seen.conversation_id)
    with answering.busy:
        for _ in range(MAX_CONVERSATIONS + 3):
            shelf.new()
        assert len(shelf.away) == 6
        assert not {seen, answering, unkept} & set(shelf.away)
    shelf.new()
    assert answering in shelf.away


def test_where_all_are_in_use_more_are_opened(shelf):
    shelf.watched.update(conversation.conversation_id for conversation in shelf.fill())
    one_more = shelf.new()
    assert shelf.away == [] and len(shelf.open.present()) == MAX_CONVERSATIONS + 1
    assert shelf.open.find(one_more.conversation_id) is one_more


def test_an_unknown_conversation_is_not_found(shelf):
    assert shelf.open.find("0" * 32) is None and shelf.open.take("0" * 32) is None


def test_one_id_is_one_conversation(shelf):
    conversation = shelf.new()
    assert shelf.open.add(Conversation(conversation.conversation_id)) is conversation


def test_a_conversation_goes_to_one_tab_at_a_time(shelf):
    conversation_id = shelf.new().conversation_id
    assert shelf.open.claim(conversation_id)
    assert not shelf.open.claim(conversation_id)
    other_id = shelf.new().conversation_id
    shelf.watched.add(other_id)
    assert not shelf.open.claim(other_id)
