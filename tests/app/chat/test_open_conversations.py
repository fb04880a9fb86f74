"""Which conversation makes room for a new one, and what its tab is told."""

from __future__ import annotations

import pytest

from app.chat.open_conversations import MAX_CONVERSATIONS, ConversationEvicted, OpenConversations
from app.errors import UserFacingError


@pytest.fixture
def watched() -> set[str]:
    return set()


@pytest.fixture
def conversations(watched) -> OpenConversations:
    return OpenConversations(watched.__contains__)


def fill(conversations: OpenConversations) -> list:
    return [conversations.open()[0] for _ in range(MAX_CONVERSATIONS)]


def test_the_conversation_unused_for_longest_makes_room(conversations):
    first, second, *_ = fill(conversations)
    assert conversations.find(first.conversation_id) is first  # used just now
    newer, evicted = conversations.open()
    assert evicted is second
    assert conversations.find(first.conversation_id) is first
    assert conversations.find(newer.conversation_id) is newer
    with pytest.raises(ConversationEvicted, match="nobody used it"):
        conversations.find(second.conversation_id)


def test_one_that_is_in_use_makes_no_room(conversations, watched):
    seen, answering, reading, unused, *_ = fill(conversations)
    watched.add(seen.conversation_id)
    with answering.busy, conversations.kept_open(reading):
        assert conversations.open()[1] is unused
    assert conversations.open()[1] is answering
    assert conversations.open()[1] is reading


def test_where_all_are_in_use_nothing_is_opened(conversations, watched):
    watched.update(conversation.conversation_id for conversation in fill(conversations))
    with pytest.raises(UserFacingError, match="all of them are in use. Close a tab"):
        conversations.open()
    assert conversations.take(next(iter(watched))) is not None
    assert conversations.open()[1] is None


def test_an_unknown_conversation_is_refused(conversations):
    with pytest.raises(UserFacingError, match="conversation is closed"):
        conversations.find("0" * 32)
    assert conversations.take("0" * 32) is None
