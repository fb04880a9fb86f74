"""Score: what a page's summary says of the attention that its keys may get."""
