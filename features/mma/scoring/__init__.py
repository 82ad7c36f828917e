"""Scores of an extractor on labelled faces."""
