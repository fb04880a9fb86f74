"""Select: which pages are read."""
