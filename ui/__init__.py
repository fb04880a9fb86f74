"""The page: Gradio Blocks, one module per panel. Speaks to `app.assistant` and never imports torch."""
