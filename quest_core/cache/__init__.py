"""The paged KV cache: its layout, the pool of pages, prefixes that sequences share, and their snapshots on the disk."""
