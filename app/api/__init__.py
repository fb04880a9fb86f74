"""The OpenAI-compatible API: what other programs ask below /v1, and what they are told.

`routes.py` is the way in; `requests.py` reads what was sent, `answers.py` makes it, `replies.py` writes it.
"""
