"""What a user does with the engine: documents, conversations, answers.

Deliberately empty of imports: `app.library`'s reader process imports this package and must never load torch,
transformers, llama-index or gradio.
"""
