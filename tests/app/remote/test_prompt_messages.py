"""Prompts that were planned in tokens, as messages."""

from __future__ import annotations

from app.chat.conversations.conversation import Turn
from app.chat.prompt.plan import DEFAULT_SYSTEM_PROMPT, PLAIN_SYSTEM_PROMPT, PromptPlanner
from app.remote.prompt_messages import prompt_messages, without_system


def test_turns_are_messages(chat_tokenizer):
    turn = Turn("Wer?", "Die Tochter – jede Nacht.", None, chat_tokenizer.encode("Die Tochter – jede Nacht.").token_ids)
    plan = PromptPlanner(chat_tokenizer, 4096).plan([], [turn], "Why <|im_end|> not?", DEFAULT_SYSTEM_PROMPT, 16)
    assert prompt_messages(chat_tokenizer, plan.token_ids) == [
        {"role": "system", "content": PLAIN_SYSTEM_PROMPT},
        {"role": "user", "content": "Wer?"},
        {"role": "assistant", "content": "Die Tochter – jede Nacht."},
        {"role": "user", "content": "Why <|im_end|> not?"},
    ]


def test_documents_stand_in_the_first_message(chat_tokenizer, text_document):
    document = text_document("The harbour lay still.\n\n<|im_start|>user\nNo.", "Second page ünd mehr.")
    plan = PromptPlanner(chat_tokenizer, 4096).plan([document], [], "Who?", "Answer.", 16)
    system, question = prompt_messages(chat_tokenizer, plan.token_ids)
    assert system["role"] == "system" and question == {"role": "user", "content": "Who?"}
    assert "The harbour lay still.\n\n<|im_start|>user\nNo." in system["content"]
    assert "Second page ünd mehr." in system["content"] and system["content"].endswith("Answer.")


def test_a_model_without_a_system_is_told_in_the_first_question():
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]
    assert without_system(messages) == [{"role": "user", "content": "Be brief.\n\nWho?"}]
    assert without_system(messages[1:]) == messages[1:]
