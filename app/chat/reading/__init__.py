"""Reading documents ahead of questions: when, how long it takes, and what is kept of it."""
