"""A conversation over documents: the prompt, the answer, and what is told of how it was made."""
