"""Decoding: what a step attends to, how an answer's steps run, one by one or in rounds, and how tokens are drawn."""
