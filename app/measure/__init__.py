"""Measurements: `bench` for speed, `eval` for accuracy."""
