"""Checkpoints as bytes: headers, digests, and rewriting a few ranges of them."""
