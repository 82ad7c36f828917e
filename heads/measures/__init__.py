"""Losses to train by, scores to judge by, and the baseline that sees only lengths."""
