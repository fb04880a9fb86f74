"""Score: from a page's summary, estimate the attention that its keys may get."""
