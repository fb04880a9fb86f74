"""The Quest engine: long-context decoding that reads only the KV pages a query needs.

Speaks token ids only. It knows nothing of text, documents, pages of a PDF or the web.
Start reading at `engine.py`, then `session.py`. `decoder.py` is the transformer; `decode/attention.py` decides what a
step reads. How pages are scored, selected and attended is in `kernels`.
"""
