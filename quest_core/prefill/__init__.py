"""Prefill: a prompt's tokens into the cache, chunk by chunk, except those that are there or on the disk already."""
