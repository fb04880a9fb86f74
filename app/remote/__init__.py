"""Another engine behind the page: any server that speaks the chat completions of OpenAI's API.

The library, conversations, passages and sources are ours; the model, its cache and its device are the server's.
"""
