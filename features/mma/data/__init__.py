"""Labelled faces for training: packs, data sets of others, and what their labels mean."""
