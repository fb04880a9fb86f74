"""Whom we are measured beside: their models, caches and steps, and whether ours gives the same logits."""
