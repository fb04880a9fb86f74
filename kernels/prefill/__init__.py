"""Prefill: what many tokens at once need beside products and a dense attention kernel."""
