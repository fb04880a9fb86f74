"""Append: new keys and values in their pages, and what sums up the keys of a page."""
