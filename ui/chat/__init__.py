"""The conversation on the page: its messages, the row below each answer, the line below the question."""
