"""The page: Gradio Blocks, one module per panel. Speaks to `app.chat.assistant` and never imports torch."""
