"""Conversations: in memory, on their way to the disk, and as files of their own."""
