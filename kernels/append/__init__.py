"""Append: write new keys and values to their pages, and refresh the summaries of these."""
