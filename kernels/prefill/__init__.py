"""Prefill: operators on many tokens at once, beside products and a dense attention kernel."""
