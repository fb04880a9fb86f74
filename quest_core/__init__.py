"""The Quest engine: long-context decoding that reads only the KV pages a query needs.

Speaks token ids only. It knows nothing of text, documents, pages of a PDF or the web.
Start reading at `engine.py`; the algorithm itself is in `page_selection.py` and `attention.py`.
"""
