"""From a conversation to prompt tokens: the plan of a prompt, the chat template, and what is told of passages."""
