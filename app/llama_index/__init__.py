"""The app for programs that use llama-index: its model as an LLM, its library as a reader and a retriever.

Nothing else in the app imports this room: it loads most of llama-index, which takes seconds. Knows nothing of HTTP or
of the page; conversations and their citations stay with `app.chat`.
"""

from app.llama_index.library_reader import LibraryReader
from app.llama_index.library_retriever import LibraryRetriever
from app.llama_index.open_library import OpenLibrary, open_library
from app.llama_index.quest_llm import QuestLLM

__all__ = ["LibraryReader", "LibraryRetriever", "OpenLibrary", "QuestLLM", "open_library"]
