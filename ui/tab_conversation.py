"""The conversation that a tab's request is about."""

from app.chat.assistant import Assistant
from app.chat.conversations.conversation import Conversation
from app.errors import UserFacingError


def tab_conversation(assistant: Assistant, conversation_id: object) -> Conversation:
    """The conversation of that id.

    Raises:
        UserFacingError: if there is none, or the tab has none yet.
    """
    # To the assistant no id means: whichever.
    if not conversation_id or not isinstance(conversation_id, str):
        raise UserFacingError("This tab has no conversation yet. Reload the page.")
    return assistant.open_conversation(conversation_id)
