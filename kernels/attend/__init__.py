"""Attend: attention of one token over the pages of its sequence."""
